"""What the command shows of a ModelDeployment, read leniently from the object as stored.

An object that an older or newer operator wrote must still be shown, so nothing is validated here:
what is missing is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Seconds = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a status."""

    type: str
    status: str
    reason: str
    message: str
    since: str


@dataclass(frozen=True, slots=True)
class Start:
    """The last cold start: seconds by stage on the critical path, and of overlapped work."""

    total: float
    path: str
    at: str | None
    stages: Seconds
    hidden: Seconds


@dataclass(frozen=True, slots=True)
class PathStatistics:
    """Seconds by stage over the recent starts of one path (cold, cached, standby, asleep)."""

    samples: int
    p50: Seconds
    p90: Seconds


@dataclass(frozen=True, slots=True)
class ColdStart:
    """How long starts from zero take, in seconds."""

    last: Start | None
    p50: float | None
    p90: float | None
    samples: int
    paths: Mapping[str, PathStatistics]


@dataclass(frozen=True, slots=True)
class Model:
    """One ModelDeployment as its status tells."""

    namespace: str
    name: str
    pinned: int | None
    replicas: int
    ready: int
    tiers: Mapping[str, int]
    desired: int | None
    reason: str | None
    decided_at: str | None
    dollars_per_hour: float | None
    cold_start: ColdStart
    conditions: tuple[Condition, ...]

    def condition(self, kind: str) -> Condition | None:
        """Return the condition of this type."""
        return next((c for c in self.conditions if c.type == kind), None)


def model(body: Mapping[str, Any]) -> Model:
    """Read a ModelDeployment."""
    metadata, status = body["metadata"], body.get("status") or {}
    decision = status.get("decision") or {}
    return Model(
        namespace=metadata["namespace"],
        name=metadata["name"],
        pinned=(body.get("spec") or {}).get("replicas"),
        replicas=status.get("replicas") or 0,
        ready=status.get("readyReplicas") or 0,
        tiers=status.get("tiers") or {},
        desired=decision.get("desired"),
        reason=decision.get("reason"),
        decided_at=decision.get("at"),
        dollars_per_hour=(status.get("cost") or {}).get("dollarsPerHour"),
        cold_start=cold_start(status.get("coldStart") or {}),
        conditions=tuple(condition(c) for c in status.get("conditions") or ()),
    )


def condition(body: Mapping[str, Any]) -> Condition:
    """Read one condition."""
    return Condition(
        type=body["type"],
        status=body["status"],
        reason=body.get("reason") or "",
        message=body.get("message") or "",
        since=body.get("lastTransitionTime") or "",
    )


def cold_start(body: Mapping[str, Any]) -> ColdStart:
    """Read status.coldStart."""
    return ColdStart(
        last=start(body["last"]) if body.get("last") else None,
        p50=body.get("p50"),
        p90=body.get("p90"),
        samples=body.get("samples") or 0,
        paths={name: statistics(path) for name, path in (body.get("paths") or {}).items()},
    )


def start(body: Mapping[str, Any]) -> Start:
    """Read status.coldStart.last."""
    stages = body.get("stages") or {}
    total = body.get("total")
    return Start(
        total=sum(stages.values()) if total is None else total,
        path=body.get("path") or "cold",
        at=body.get("at"),
        stages=stages,
        hidden=body.get("hidden") or {},
    )


def statistics(body: Mapping[str, Any]) -> PathStatistics:
    """Read one entry of status.coldStart.paths."""
    return PathStatistics(
        samples=body.get("samples") or 0, p50=body.get("p50") or {}, p90=body.get("p90") or {}
    )
