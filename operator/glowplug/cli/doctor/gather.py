"""Reads what the checks share; what may not be read is None, and the checks say so."""

from __future__ import annotations

import asyncio

from glowplug.cli.doctor.finding import Body, Cluster, Installed, Options
from glowplug.kube import (
    DEPLOYMENTS,
    GPUPOOLS,
    MODELDEPLOYMENTS,
    NODES,
    Client,
    Forbidden,
    NotFound,
    Resource,
)

PRODUCT = "app.kubernetes.io/name=glowplug"
COMPONENT = "app.kubernetes.io/component"


async def gather(client: Client, options: Options) -> Cluster:
    """Read everything at the same time. Raises ApiError where the cluster does not answer."""
    deployments, models, pools, nodes = await asyncio.gather(
        _list(client, DEPLOYMENTS, PRODUCT),
        _list(client, MODELDEPLOYMENTS),
        _list(client, GPUPOOLS),
        _list(client, NODES),
    )
    operators = _of(deployments, "operator")
    return Cluster(
        client=client,
        options=options,
        operators=operators,
        gateways=_of(deployments, "gateway"),
        installed=installed(operators[0]) if operators else None,
        models=models,
        pools=pools,
        nodes=nodes,
    )


async def _list(client: Client, res: Resource, selector: str | None = None) -> list[Body] | None:
    try:
        return await client.list(res, label_selector=selector)
    except (Forbidden, NotFound):
        return None


def _of(deployments: list[Body] | None, component: str) -> list[Body] | None:
    if deployments is None:
        return None
    return [d for d in deployments if d["metadata"].get("labels", {}).get(COMPONENT) == component]


def installed(deployment: Body) -> Installed:
    """Read the operator's Deployment: flags as `--name=value`, or from GLOWPLUG_NAME variables."""
    pod = deployment["spec"]["template"]["spec"]
    flags: dict[str, str] = {}
    for container in pod.get("containers") or ():
        for variable in container.get("env") or ():
            if variable["name"].startswith("GLOWPLUG_") and variable.get("value"):
                name = variable["name"].removeprefix("GLOWPLUG_").lower().replace("_", "-")
                flags[name] = variable["value"]
        for word in container.get("args") or ():
            name, sign, value = word.removeprefix("--").partition("=")
            if sign:
                flags[name] = value
    return Installed(
        namespace=deployment["metadata"]["namespace"],
        service_account=pod.get("serviceAccountName") or "default",
        flags=flags,
    )
