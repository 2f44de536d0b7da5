"""Check of the store: the snapshotter's own code asks it, with the credentials at hand."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from glowplug.cli.doctor.finding import Cluster, Finding, bad, ok, warn
from glowplug.kube import SECRETS, Forbidden, NotFound

# Where an S3 client finds credentials in the environment.
_SIGNS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
_NO_BLOB = "0" * 64


class MissingSecretError(Exception):
    """The Secret that the user named cannot be read; the message says why."""


async def store(cluster: Cluster) -> list[Finding]:
    """The store answers, the bucket is there, and the credentials may look into it."""
    flags = cluster.installed.flags if cluster.installed is not None else {}
    url = cluster.options.store_url or flags.get("store-url")
    endpoint = cluster.options.store_endpoint or flags.get("store-endpoint")
    if not url:
        if cluster.installed is None:
            return [warn("Which store there is is not known.", "Give --store-url s3://bucket.")]
        return [ok("No store is configured (store.url): replicas load from model.source.")]
    try:
        env = await _environment(cluster)
    except MissingSecretError as error:
        return [bad(str(error), "Correct --secret and -n.")]
    if env is None:
        return [_no_credentials(url, flags.get("store-secret"))]
    host = urlsplit(endpoint or "").hostname
    if host is not None and not await asyncio.to_thread(_is_known, host):
        told = f"{host} is not known on this machine, so the store {url} was not asked."
        advice = (
            f"{_inside(cluster, url, endpoint)} Or give --store-endpoint, after a port-forward."
        )
        return [warn(told, advice)]
    return [await asyncio.to_thread(ask, url, endpoint, env)]


def ask(url: str, endpoint: str | None, env: Mapping[str, str]) -> Finding:
    """List the bucket and look for a blob, as a take does first; blocks for up to a minute."""
    import obstore

    from glowplug_snapshotter.backends import buckets
    from glowplug_snapshotter.errors import SnapshotError
    from glowplug_snapshotter.store import open_store

    where = f"{url} at {endpoint}" if endpoint else url
    try:
        store = open_store(url, endpoint, env)
        parts = urlsplit(url)
        opened = buckets.open_s3(parts.netloc, endpoint, env, buckets.STORE_PREFIX)
        try:
            obstore.list_with_delimiter(opened, unquote(parts.path).strip("/") or None)
        except Exception as error:  # obstore has no common base for its errors
            raise buckets.translate(error, f"s3://{parts.netloc}") from error
        store.has_blob(_NO_BLOB, 0)
    except SnapshotError as error:
        advice = "Correct store.url, store.endpoint or the Secret; docs/runbooks/"
        return bad(f"The store {where}: {error.message}", f"{advice}GlowplugSnapshotFailing.md.")
    return ok(f"The store {where} answers, and these credentials may read it.")


async def _environment(cluster: Cluster) -> dict[str, str] | None:
    """Variables that hold credentials: of the Secret given, else this process's; None for none."""
    name, namespace = cluster.options.secret, cluster.options.namespace
    if name is None:
        return dict(os.environ) if any(sign in os.environ for sign in _SIGNS) else None
    try:
        secret = await cluster.client.get(SECRETS, name, namespace)
    except NotFound:
        raise MissingSecretError(f"There is no Secret {name} in {namespace}.") from None
    except Forbidden:
        raise MissingSecretError(f"You may not read Secret {name} in {namespace}.") from None
    data = secret.get("data") or {}
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}


def _no_credentials(url: str, secret: str | None) -> Finding:
    told = f"The store {url} was not asked: there are no credentials to ask it with."
    if secret:
        return warn(told, f"Give --secret {secret} -n NAMESPACE, of a namespace with models.")
    return warn(told, "Give --secret NAME -n NAMESPACE, or set AWS_ACCESS_KEY_ID and its secret.")


def _inside(cluster: Cluster, url: str, endpoint: str | None) -> str:
    """The command that asks from the operator's Pod, which may not read its own Deployment."""
    namespace = cluster.installed.namespace if cluster.installed is not None else "NAMESPACE"
    run = f"kubectl -n {namespace} exec deploy/glowplug-operator -- env AWS_ACCESS_KEY_ID=..."
    flags = f"--store-url {url}" + (f" --store-endpoint {endpoint}" if endpoint else "")
    return f"Ask from inside: {run} AWS_SECRET_ACCESS_KEY=... glowplug doctor {flags}"


def _is_known(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
