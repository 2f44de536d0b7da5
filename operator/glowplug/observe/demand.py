"""What the gateways say about demand, merged over all of them; pure, time is a parameter.

held and inflight are gauges; arrivals, completions and busySeconds are cumulative per (gateway,
epoch), where an epoch is one life of a gateway process. Totals over all gateways only ever grow.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STALE_AFTER = 3.0
"""Seconds of silence after which a gateway's models are stale."""

_REMEMBERED = 64
_COUNTERS = ("arrivals", "completions", "busySeconds")


@dataclass(frozen=True, slots=True)
class Demand:
    """One model's demand now; totals are monotonic since this operator started.

    by_pod: requests in flight by Pod uid, for each Pod that some gateway may still send to or has
    requests at; unless `stale`, a Pod that is missing has none and gets no more.
    """

    held: int = 0
    inflight: int = 0
    arrivals_total: int = 0
    completions_total: int = 0
    busy_seconds_total: float = 0.0
    stale: bool = False
    by_pod: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class First:
    """The first token after a cold start, as a gateway saw it; seconds since the epoch."""

    model: str
    pod_uid: str
    received: float
    sent: float
    first_token: float
    replica_ready: float | None


@dataclass(frozen=True, slots=True)
class News:
    """What one demand line changed: models of which more is asked than before, and first tokens."""

    woken: tuple[str, ...] = ()
    firsts: tuple[First, ...] = ()


class MalformedLineError(ValueError):
    """A demand line that cannot be trusted; the sentence names what is wrong."""


@dataclass(frozen=True, slots=True)
class _Entry:
    held: int
    inflight: int
    counters: tuple[float, ...]
    pods: Mapping[str, int]


@dataclass(slots=True)
class _Gateway:
    serving: bool
    since: float  # when it was found, or last heard
    baseline: bool  # its first counters are history from before this operator
    heard: bool = False
    epoch: object = None
    entries: dict[str, _Entry] = field(default_factory=dict)
    counters: dict[str, tuple[float, ...]] = field(default_factory=dict)


class DemandBook:
    """All gateways' demand. A gateway is known by any hashable key, such as its Pod's uid."""

    def __init__(self) -> None:
        self._gateways: dict[str, _Gateway] = {}
        self._left: OrderedDict[str, _Gateway] = OrderedDict()
        self._totals: dict[str, list[float]] = {}

    def found(self, key: str, now: float, *, serving: bool, from_start: bool) -> None:
        """A gateway is in the EndpointSlices; `from_start`: it was before this operator was."""
        gateway = self._gateways.get(key)
        if gateway is None:
            # One that comes back goes on counting where it left, or it would count twice.
            gateway = self._left.pop(key, None) or _Gateway(serving, now, baseline=from_start)
            gateway.since = now
            self._gateways[key] = gateway
        gateway.serving = serving

    def gone(self, key: str) -> None:
        """A gateway has left the EndpointSlices: what it held is no longer demand."""
        gateway = self._gateways.pop(key, None)
        if gateway is None:
            return
        gateway.entries.clear()
        self._left[key] = gateway
        while len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)

    def line(self, key: str, line: Mapping[str, Any], now: float, *, full: bool) -> News:
        """Take one line; `full` for the first of a stream, a snapshot of everything.

        Raises `MalformedLineError` and then has taken nothing.
        """
        gateway = self._gateways[key]
        models = {name: _entry(name, entry) for name, entry in _mapping(line, "models").items()}
        firsts = tuple(_first(record) for record in line.get("firsts") or ())
        if line.get("epoch") != gateway.epoch:
            gateway.epoch = line.get("epoch")
            gateway.counters.clear()
            full = True
        before = {name: self._asked(name) for name in models}
        if full:
            gateway.entries.clear()
        for name, entry in models.items():
            gateway.entries[name] = entry
            self._count(gateway, name, entry.counters)
        gateway.heard = True
        gateway.baseline = False  # from now on, all it counts happened under our eyes
        gateway.since = now
        woken = tuple(name for name in models if self._asked(name) > before[name])
        return News(woken, firsts)

    def snapshot(self, model: str, now: float) -> Demand:
        """The model's demand at `now`, over all gateways."""
        entries = [g.entries[model] for g in self._gateways.values() if model in g.entries]
        by_pod: Counter[str] = Counter()
        for entry in entries:
            by_pod.update(entry.pods)
        arrivals, completions, busy = self._totals.get(model, (0, 0, 0.0))
        return Demand(
            held=sum(entry.held for entry in entries),
            inflight=sum(entry.inflight for entry in entries),
            arrivals_total=int(arrivals),
            completions_total=int(completions),
            busy_seconds_total=float(busy),
            stale=any(_stale(g, model, now) for g in self._gateways.values()),
            by_pod=dict(by_pod),
        )

    def models(self) -> frozenset[str]:
        """Every model that any gateway has spoken of."""
        return frozenset(self._totals)

    def _asked(self, model: str) -> int:
        """Requests held or in flight."""
        entries = (g.entries[model] for g in self._gateways.values() if model in g.entries)
        return sum(entry.held + entry.inflight for entry in entries)

    def _count(self, gateway: _Gateway, model: str, counters: tuple[float, ...]) -> None:
        before = gateway.counters.get(model)
        if before is None:
            before = counters if gateway.baseline else (0.0,) * len(_COUNTERS)
        gateway.counters[model] = counters
        totals = self._totals.setdefault(model, [0.0] * len(_COUNTERS))
        for i, (old, new) in enumerate(zip(before, counters, strict=True)):
            totals[i] += max(0.0, new - old)


def _stale(gateway: _Gateway, model: str, now: float) -> bool:
    if now - gateway.since <= STALE_AFTER:
        return False
    if gateway.heard:
        return model in gateway.counters
    # Never heard: it may hold any model's requests, but only if clients reach it.
    return gateway.serving


def _mapping(line: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = line.get(key)
    if not isinstance(value, dict):
        raise MalformedLineError(f"{key!r} is {type(value).__name__}, an object is needed")
    return value


def _entry(model: str, entry: Any) -> _Entry:
    if not isinstance(entry, dict):
        raise MalformedLineError(f"models[{model!r}] is not an object")
    pods = _mapping(entry, "pods") if "pods" in entry else {}
    return _Entry(
        held=int(_number(model, entry, "held")),
        inflight=int(_number(model, entry, "inflight")),
        counters=tuple(_number(model, entry, key) for key in _COUNTERS),
        pods={uid: int(_number(model, pods, uid)) for uid in pods},
    )


def _number(model: str, entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedLineError(f"models[{model!r}].{key} is not a number")
    if not math.isfinite(value) or value < 0:
        raise MalformedLineError(f"models[{model!r}].{key} is {value}")
    return float(value)


def _first(record: Any) -> First:
    try:
        ready = record.get("replicaReady")
        first = First(
            model=str(record["model"]),
            pod_uid=str(record["pod"]),
            received=float(record["received"]),
            sent=float(record["sent"]),
            first_token=float(record["firstToken"]),
            replica_ready=None if ready is None else float(ready),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedLineError(f"firsts: {error!r}") from error
    if not all(map(math.isfinite, _times(first))):
        raise MalformedLineError("firsts: a time is not finite")
    return first


def _times(first: First) -> Iterable[float]:
    return (first.received, first.sent, first.first_token)
