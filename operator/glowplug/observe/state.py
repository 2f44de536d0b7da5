"""What a replica's launcher says of itself, as a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PHASES = frozenset({"restoring", "starting", "ready", "asleep", "draining", "failed"})


@dataclass(frozen=True, slots=True)
class StageSpan:
    """One stage of a start; seconds since the epoch, `end` None while it lasts."""

    name: str
    start: float
    end: float | None
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One engine process as its launcher, or a poll of its health path, last told.

    `at` is when that news arrived here; `reachable` is false when the last attempt failed.
    """

    phase: str
    at: float
    reachable: bool = True
    seq: int = 0
    launched_at: float | None = None
    ready_at: float | None = None
    stages: tuple[StageSpan, ...] = ()
    error: str | None = None
    exit_code: int | None = None
    restore: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stage(self) -> str | None:
        """The stage of the start that was reached last."""
        return next((span.name for span in reversed(self.stages) if not span.hidden), None)


def parse_state(body: Mapping[str, Any], at: float) -> ReplicaState:
    """The launcher's `/state` -> ReplicaState; raises ValueError naming a field it cannot read."""
    phase = body.get("phase")
    if phase not in PHASES:
        raise ValueError(f"phase is {phase!r}, not one of {', '.join(sorted(PHASES))}")
    restore = body.get("restore")
    return ReplicaState(
        phase=phase,
        at=at,
        seq=_whole(body, "seq") or 0,
        launched_at=_time(body, "launchedAt"),
        ready_at=_time(body, "readyAt"),
        stages=spans(body.get("stages")),
        error=str(body["error"]) if body.get("error") else None,
        exit_code=_whole(body, "exitCode"),
        restore=restore if isinstance(restore, dict) else {},
    )


def spans(stages: Any) -> tuple[StageSpan, ...]:
    """A list of stages as launchers and restore containers write it; unreadable ones are left."""
    found = []
    for stage in stages if isinstance(stages, list) else ():
        try:
            start, end = _time(stage, "start"), _time(stage, "end")
            name = str(stage["name"])
        except (AttributeError, KeyError, ValueError):
            continue
        if start is not None:
            found.append(StageSpan(name, start, end, bool(stage.get("hidden"))))
    return tuple(found)


def _whole(body: Mapping[str, Any], key: str) -> int | None:
    value = body.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{key} is {value!r}, not a whole number")
    return value


def _time(body: Mapping[str, Any], key: str) -> float | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} is {value!r}, not a time")
    return float(value)
