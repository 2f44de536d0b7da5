"""Everything observed of one model in one record, by the rules that decisions rely on. Pure.

`ModelSignals` has the fields that a decision's observation needs, under the same names; control
maps one onto the other, because observe and decide do not know each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from glowplug.observe.demand import Demand
from glowplug.observe.engines import EngineSignals
from glowplug.observe.history import MeasuredLeadTimes
from glowplug.observe.replicas import Census

KV_FULL = 0.9
"""KV usage from which an engine queues or preempts rather than runs more."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Cumulative demand at one step, to take the difference at the next."""

    arrivals: int
    completions: int
    busy_seconds: float

    @classmethod
    def of(cls, demand: Demand) -> Totals:
        """The totals in a demand snapshot."""
        return cls(demand.arrivals_total, demand.completions_total, demand.busy_seconds_total)


@dataclass(frozen=True, slots=True)
class ModelSignals:
    """One model at `now` (s since the epoch); None = missing.

    arrivals, completions, busy_seconds: since `previous`; running, waiting, held: requests;
    ready to draining: replicas; slots: what one replica can run, where its KV cache is full.
    """

    now: float
    arrivals: int
    completions: int
    busy_seconds: float
    running: float | None
    waiting: float | None
    held: int
    ready: int
    starting: int
    asleep: int
    draining: int
    standbys: int
    slots: int | None
    lead_times: MeasuredLeadTimes
    stale: bool
    stale_why: str | None
    kv_usage: float | None
    totals: Totals


def signals(
    now: float,
    demand: Demand,
    census: Census,
    engines: EngineSignals | None,
    *,
    previous: Totals | None = None,
    metrics: bool = True,
    lead_times: MeasuredLeadTimes | None = None,
) -> ModelSignals:
    """Join what gateways, Pods and engines say.

    `metrics`: the engines' metrics are expected (the engine has a dialect and a Prometheus is
    configured); without them, gateway demand is all there is, and nothing is stale for lack of
    them. `previous`: the `totals` of the last step; None counts from now on.
    """
    why = _stale_why(demand, census, engines if metrics else None, metrics)
    usable = engines if metrics else None
    waiting = usable.waiting if usable else None
    engine_running = usable.running if usable else None
    # The gateways see what passes through them, the engines also what does not.
    in_engines = max(float(demand.inflight), (engine_running or 0.0) + (waiting or 0.0))
    totals = Totals.of(demand)
    before = previous or totals
    return ModelSignals(
        now=now,
        arrivals=max(0, totals.arrivals - before.arrivals),
        completions=max(0, totals.completions - before.completions),
        busy_seconds=max(0.0, totals.busy_seconds - before.busy_seconds),
        running=in_engines - (waiting or 0.0),
        waiting=waiting,
        held=demand.held,
        ready=census.ready,
        starting=census.starting,
        asleep=census.asleep,
        draining=census.draining,
        standbys=0,
        slots=_slots(usable),
        lead_times=lead_times or MeasuredLeadTimes(),
        stale=why is not None,
        stale_why=why,
        kv_usage=usable.kv_usage if usable else None,
        totals=totals,
    )


def _stale_why(
    demand: Demand, census: Census, engines: EngineSignals | None, metrics: bool
) -> str | None:
    if demand.stale:
        return "a gateway is silent, so its demand is not known"
    if not metrics:
        return None
    expected = {
        one.pod.name
        for one in census.seen
        if one.standing == "ready" and one.replica.metrics is not None
    }
    missing = expected - (engines.pods if engines else frozenset())
    if missing:
        return f"Prometheus has no fresh sample of {', '.join(sorted(missing)[:3])}"
    lacking = engines.lacking & {"waiting", "running"} if expected and engines else frozenset()
    if lacking:
        return f"the engines' metrics lack a usable number for {' and '.join(sorted(lacking))}"
    return None


def _slots(engines: EngineSignals | None) -> int | None:
    """Requests that one replica can run when its KV cache is what limits it, else None."""
    if engines is None or engines.kv_usage is None or engines.running is None:
        return None
    if engines.kv_usage < KV_FULL or engines.running <= 0:
        return None
    each = engines.running / len(engines.pods)
    return max(1, math.floor(each * KV_FULL / engines.kv_usage))
