"""The user's cluster: which one, which namespace, and its refusals as sentences that help."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from kubernetes.aio import config as kube_config
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

from glowplug.kube import (
    MODELDEPLOYMENTS,
    ApiError,
    Client,
    Forbidden,
    Json,
    NotFound,
    Unreachable,
)

T = TypeVar("T")
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
KUBECONFIG_HELP = "Set KUBECONFIG or give --kubeconfig, and try: kubectl get nodes"


class CommandError(Exception):
    """The command cannot go on; the message ends with what to do."""


def call(work: Callable[[Client], Awaitable[T]], kubeconfig: str | None) -> T:
    """Run `work` with a client of the user's cluster. Raises CommandError."""

    async def run() -> T:
        async with connected(kubeconfig) as client:
            return await work(client)

    try:
        return asyncio.run(run())
    except ApiError as error:
        raise CommandError(advice(error)) from error


@asynccontextmanager
async def connected(kubeconfig: str | None) -> AsyncIterator[Client]:
    """Connect to the cluster that kubectl would talk to."""
    if not in_pod(kubeconfig) and not files(kubeconfig):
        wanted = kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
        raise CommandError(f"There is no kubeconfig at {wanted}. {KUBECONFIG_HELP}")
    try:
        client = await Client.connect(kubeconfig)
    except Exception as error:  # the library raises whatever a broken file makes it stumble over
        raise CommandError(f"The kubeconfig cannot be read: {error} {KUBECONFIG_HELP}") from error
    try:
        yield client
    finally:
        await client.close()


def in_pod(kubeconfig: str | None) -> bool:
    """Whether the command runs in a Pod, and by that Pod's rights."""
    return kubeconfig is None and POD_NAMESPACE.exists()


def files(kubeconfig: str | None) -> list[str]:
    """Return the kubeconfig files that exist of those that kubectl would read."""
    wanted = kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
    return [p for p in wanted.split(os.pathsep) if p and Path(p).expanduser().is_file()]


def current_namespace(kubeconfig: str | None) -> str:
    """Return the namespace that kubectl would use; `default` when nothing tells."""
    if in_pod(kubeconfig):
        return POD_NAMESPACE.read_text().strip()
    if not files(kubeconfig):
        return "default"
    try:
        _, active = kube_config.list_kube_config_contexts(  # type: ignore[no-untyped-call]
            config_file=kubeconfig
        )
        return str(active["context"].get("namespace") or "default")
    except Exception:  # as above; connecting says what is wrong with the file
        return "default"


async def find(client: Client, name: str, namespace: str) -> Json:
    """Read one ModelDeployment. Raises CommandError when there is none of that name."""
    try:
        return await client.get(MODELDEPLOYMENTS, name, namespace)
    except NotFound as error:
        if error.details.get("name") != name:
            raise  # it is the kind that is missing
        raise CommandError(
            f"There is no ModelDeployment {name} in the namespace {namespace}. "
            "List all with: glowplug status -A"
        ) from error


def advice(error: ApiError) -> str:
    """Return what the API server said and what to do about it."""
    if isinstance(error, Unreachable):
        return f"The cluster does not answer: {error.message}. {KUBECONFIG_HELP}"
    if isinstance(error, NotFound):
        return (
            "This cluster does not know ModelDeployments. "
            "Install Glowplug with: helm install glowplug charts/glowplug"
        )
    if isinstance(error, Forbidden):
        return (
            f"You may not do this: {error.message}. Ask for the verbs get, list and patch on "
            "modeldeployments.glowplug.dev."
        )
    if error.status == 401:
        return "The cluster does not accept your credentials. Log in again, then repeat."
    return f"The API server refused: {error.message}. Correct that, then repeat."
