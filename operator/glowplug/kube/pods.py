"""A Pod cut down to what the operator and the gateway decide by.

Thousands are kept: a record takes about 1.6 KB (tracemalloc, 3,000 replica Pods), a whole Pod as
dicts many times that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from glowplug.kube.transport import Json

_KEPT_ANNOTATIONS = "glowplug.dev/"


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """One container's status; the last termination stays visible while it waits to restart."""

    name: str
    running: bool
    started: bool
    ready: bool
    restart_count: int
    waiting_reason: str | None
    waiting_message: str | None
    terminated_reason: str | None
    exit_code: int | None
    message: str | None


@dataclass(frozen=True, slots=True)
class PodRecord:
    """One Pod. Times are seconds since the epoch; only glowplug.dev annotations are kept."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    owner_uids: tuple[str, ...]
    node: str | None
    ip: str | None
    phase: str
    created: float
    deleting: bool
    scheduled: bool
    unschedulable: str | None
    sandbox_ready: bool
    ready: bool
    containers: tuple[ContainerRecord, ...]
    init_containers: tuple[ContainerRecord, ...]


def trim_pod(obj: Json) -> PodRecord:
    """A Pod as the API server sends it -> PodRecord."""
    meta = obj["metadata"]
    status = obj.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled", {})
    refused = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    return PodRecord(
        uid=meta["uid"],
        namespace=sys.intern(meta["namespace"]),
        name=meta["name"],
        resource_version=meta["resourceVersion"],
        labels=_interned(meta.get("labels")),
        annotations={
            key: value
            for key, value in (meta.get("annotations") or {}).items()
            if key.startswith(_KEPT_ANNOTATIONS)
        },
        owner_uids=tuple(owner["uid"] for owner in meta.get("ownerReferences") or ()),
        node=(obj.get("spec") or {}).get("nodeName"),
        ip=status.get("podIP"),
        phase=sys.intern(status.get("phase") or "Pending"),
        created=datetime.fromisoformat(meta["creationTimestamp"]).timestamp(),
        deleting="deletionTimestamp" in meta,
        scheduled=scheduled.get("status") == "True",
        unschedulable=scheduled.get("message") if refused else None,
        sandbox_ready=conditions.get("PodReadyToStartContainers", {}).get("status") == "True",
        ready=conditions.get("Ready", {}).get("status") == "True",
        containers=_containers(status.get("containerStatuses")),
        init_containers=_containers(status.get("initContainerStatuses")),
    )


def _interned(pairs: Mapping[str, str] | None) -> dict[str, str]:
    # Replicas of one model repeat the same labels; one copy of each string is enough.
    return {sys.intern(key): sys.intern(value) for key, value in (pairs or {}).items()}


def _containers(statuses: Iterable[Json] | None) -> tuple[ContainerRecord, ...]:
    return tuple(_container(status) for status in statuses or ())


def _container(status: Json) -> ContainerRecord:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    return ContainerRecord(
        name=sys.intern(status["name"]),
        running="running" in state,
        started=bool(status.get("started")),
        ready=bool(status.get("ready")),
        restart_count=int(status.get("restartCount") or 0),
        waiting_reason=waiting.get("reason"),
        waiting_message=waiting.get("message"),
        terminated_reason=ended.get("reason"),
        exit_code=ended.get("exitCode"),
        message=ended.get("message"),
    )
