"""What `decide` is told: one Observation per step, lead times, history, prices."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

HUGE = 1e9
"""Larger counts are read as this many: they are past every bound anyway."""

LAST_SECOND = 1e11
"""Times after this (year 5138) are read as broken."""


@dataclass(frozen=True, slots=True)
class LeadTimes:
    """Learned medians from decision to serving, in seconds, by start path; None = no such path."""

    cold: float | None = None
    cached: float | None = None
    standby: float | None = None
    asleep: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What is true of one model at one moment.

    None means that a value should be there and is not, and holds the count; a signal that an
    engine does not have at all is 0. NaN, infinite and negative values are read as None.
    """

    now: float  # seconds since the epoch
    arrivals: float | None = None  # since the previous step
    completions: float | None = None  # since the previous step
    busy_seconds: float | None = None  # sum of the service times of those completions, s
    running: float | None = None  # requests in engines now
    waiting: float | None = None  # requests queued in engines now
    held: float | None = None  # requests held at gateways now
    ready: float | None = None  # replicas of this model that serve
    starting: float | None = None
    asleep: float | None = None
    draining: float | None = None
    standbys: float | None = None  # claimable standbys of its shape
    slots: float | None = None  # concurrent requests one replica serves well; None = learned
    lead_times: LeadTimes = field(default_factory=LeadTimes)
    stale: bool = False  # some signal is older than its budget


@dataclass(frozen=True, slots=True, eq=False)
class DemandHistory:
    """Requests per step of `step_s` seconds from `start_s` on, 1-D, ending now."""

    start_s: float
    step_s: float
    arrivals: NDArray[np.float64]

    def seconds_since_last(self) -> float:
        """Seconds from the last step with a request to the end; all of it when none came."""
        values = np.asarray(self.arrivals, dtype=float).ravel()
        came = np.flatnonzero(np.nan_to_num(values, nan=1.0) > 0)  # unknown counts as demand
        steps = values.size - 1 - came[-1] if came.size else values.size
        return float(steps) * self.step_s


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars for one GPU for one hour, and for one request that misses its service level."""

    gpu_hour: float
    slo_miss: float


def count(value: float | None) -> float | None:
    """The value as a usable count, or None for what no count can be."""
    if value is None or not math.isfinite(value) or value < 0:
        return None
    return min(float(value), HUGE)


def seconds(value: float | None) -> float | None:
    """The value as a usable duration or time, or None for what none can be."""
    if value is None or not math.isfinite(value) or not 0 <= value <= LAST_SECOND:
        return None
    return float(value)
