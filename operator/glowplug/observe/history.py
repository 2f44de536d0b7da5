"""Cold starts of one model remembered: medians and 90th percentiles per stage and start path."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from glowplug.api import STAGES
from glowplug.observe.stages import ColdStart

PATHS = ("cold", "cached", "standby", "asleep")


@dataclass(frozen=True, slots=True)
class PathStats:
    """Seconds per stage, `total` included, over the last `samples` cold starts of one path."""

    samples: int
    p50: Mapping[str, float]
    p90: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class MeasuredLeadTimes:
    """Medians (s) from decision to serving by start path; None = never measured."""

    cold: float | None = None
    cached: float | None = None
    standby: float | None = None
    asleep: float | None = None


class ColdStartHistory:
    """The last `keep` cold starts and lead times of each path, of one model."""

    def __init__(self, keep: int = 64) -> None:
        self._starts = {path: deque[ColdStart](maxlen=keep) for path in PATHS}
        self._leads = {path: deque[float](maxlen=keep) for path in PATHS}
        self._remembered: dict[str, float] = {}
        self.last: ColdStart | None = None

    def add(self, start: ColdStart) -> None:
        """Remember a cold start that a request waited for."""
        self._starts[start.path].append(start)
        self.last = start

    def add_lead(self, path: str, seconds: float) -> None:
        """Remember how long a replica took from decision to serving, waited for or not."""
        if math.isfinite(seconds) and seconds >= 0:
            self._leads[path].append(seconds)

    def remember(self, status: Mapping[str, Any]) -> None:
        """Take medians that an earlier operator wrote to `status.coldStart`, until measured anew.

        A total holds the engine's first token as well, so it errs to the long side.
        """
        for path, stats in (status.get("paths") or {}).items():
            total = ((stats or {}).get("p50") or {}).get("total")
            if path in PATHS and isinstance(total, int | float) and total > 0:
                self._remembered[path] = float(total)

    def recent(self) -> list[ColdStart]:
        """The cold starts that are remembered, of every path, the latest first."""
        return sorted((s for starts in self._starts.values() for s in starts), key=lambda s: -s.at)

    def stats(self, path: str) -> PathStats | None:
        """Figures of one path, None before its first cold start."""
        starts = self._starts[path]
        if not starts:
            return None
        columns = {name: [start.stages[name] for start in starts] for name in STAGES}
        columns["total"] = [start.total for start in starts]
        return PathStats(
            samples=len(starts),
            p50={name: median(column) for name, column in columns.items()},
            p90={name: quantile(column, 0.9) for name, column in columns.items()},
        )

    def all_stats(self) -> dict[str, PathStats]:
        """Figures of every path that has been taken."""
        found = {path: self.stats(path) for path in PATHS}
        return {path: stats for path, stats in found.items() if stats is not None}

    def lead_times(self) -> MeasuredLeadTimes:
        """The medians that decisions look ahead by."""
        return MeasuredLeadTimes(**{path: self._lead(path) for path in PATHS})

    def _lead(self, path: str) -> float | None:
        leads = self._leads[path]
        return median(leads) if leads else self._remembered.get(path)


def quantile(values: Sequence[float], q: float) -> float:
    """Nearest rank: the smallest value that a fraction `q` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
