"""What of a namespace must be the same whenever the operator was killed on the way there."""

from typing import Any

from glowplug.kube import (
    CONFIGMAPS,
    JOBS,
    MODELDEPLOYMENTS,
    MODELSNAPSHOTS,
    PODS,
    SERVICES,
    Client,
    Json,
)

from .actors import STATE, is_ready, is_replica


async def essence(client: Client, namespace: str) -> dict[str, list[Any]]:
    """Everything in the namespace without uids (and names made from them), versions and times.

    Which slots are in use depends on the way: an old replica may still have held the lowest one.
    """
    pods = await client.list(PODS, namespace)
    return {
        "replicas": sorted(_replica(pod) for pod in pods if is_replica(pod)),
        "other pods": [_owners(pod) for pod in pods if not is_replica(pod)],
        "services": [_service(one) for one in await client.list(SERVICES, namespace)],
        "config maps": [_config_map(one) for one in await client.list(CONFIGMAPS, namespace)],
        "jobs": [_owners(one) for one in await client.list(JOBS, namespace)],
        "snapshots": [_snapshot(one) for one in await client.list(MODELSNAPSHOTS, namespace)],
        "models": [_model(one) for one in await client.list(MODELDEPLOYMENTS, namespace)],
    }


def _name(obj: Json) -> str:
    name: str = obj["metadata"]["name"]
    return name


def _owners(obj: Json) -> list[str]:
    owners = obj["metadata"].get("ownerReferences") or ()
    return sorted(owner["kind"] for owner in owners)


def _replica(pod: Json) -> tuple[str, str, str, bool, bool]:
    meta = pod["metadata"]
    labels = meta["labels"]
    return (
        labels["glowplug.dev/model"],
        labels["glowplug.dev/revision"],
        labels[STATE],
        is_ready(pod),
        "deletionTimestamp" in meta,
    )


def _service(obj: Json) -> tuple[str, list[str], Json, list[int]]:
    spec = obj["spec"]
    return (_name(obj), _owners(obj), spec["selector"], [port["port"] for port in spec["ports"]])


def _config_map(obj: Json) -> tuple[str, list[str], list[str]]:
    return (_name(obj), _owners(obj), sorted(obj.get("binaryData") or {}))


def _snapshot(obj: Json) -> tuple[str, list[str], object, object]:
    status = obj.get("status") or {}
    return (_name(obj), _owners(obj), status.get("digest"), _conditions(status))


def _model(obj: Json) -> tuple[str, dict[str, object]]:
    status = dict(obj.get("status") or {})
    status["decision"] = (status.get("decision") or {}).get("desired")
    status["conditions"] = _conditions(status)
    status["isCurrent"] = status.pop("observedGeneration", 0) == obj["metadata"]["generation"]
    return (_name(obj), status)


def _conditions(status: Json) -> list[tuple[str, str, str, str]]:
    return [
        (c["type"], c["status"], c["reason"], c["message"]) for c in status.get("conditions") or ()
    ]
