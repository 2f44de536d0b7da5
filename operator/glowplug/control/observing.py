"""One look at one model: everything observed, joined under one roof."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from glowplug.act import conditions
from glowplug.act.conditions import Verdict
from glowplug.act.plan import Load
from glowplug.act.troubles import Trouble, launcher_trouble
from glowplug.control.minds import Mind
from glowplug.decide import LeadTimes, Observation
from glowplug.kube import PodRecord, WatchCache
from glowplug.observe import (
    Census,
    ColdStarts,
    GatewayDemand,
    ModelSignals,
    PrometheusSignals,
    ReplicaStates,
    census,
    signals,
)


@dataclass(frozen=True, slots=True)
class View:
    """What was seen: `pods` are this very object's, ready as their launchers say."""

    pods: tuple[PodRecord, ...]
    census: Census
    signals: ModelSignals
    load: Load
    metrics: Verdict | None
    """None while a disturbance is too young to be worth a word."""

    def observation(self) -> Observation:
        """The view in the words of `decide`."""
        seen = self.signals
        return Observation(
            now=seen.now,
            arrivals=seen.arrivals,
            completions=seen.completions,
            busy_seconds=seen.busy_seconds,
            running=seen.running,
            # What no engine here can say is 0; what one should say and does not makes it stale.
            waiting=0.0 if seen.waiting is None and not seen.stale else seen.waiting,
            held=seen.held,
            ready=seen.ready,
            starting=seen.starting,
            asleep=seen.asleep,
            draining=seen.draining,
            standbys=seen.standbys,
            slots=seen.slots,
            lead_times=LeadTimes(**dataclasses.asdict(seen.lead_times)),
            stale=seen.stale,
        )

    def requests(self) -> dict[str, float]:
        """Requests by where they are; without what is not known."""
        seen = self.signals
        known = {"running": seen.running, "waiting": seen.waiting, "held": seen.held}
        return {state: float(n) for state, n in known.items() if n is not None}

    def launcher_troubles(self) -> dict[str, Trouble]:
        """What launchers say went wrong, by Pod uid."""
        return {
            one.pod.uid: launcher_trouble(one.pod, one.state.error, one.state.stage)
            for one in self.census.seen
            if one.state is not None and one.state.error
        }


class Observer:
    """Looks at models; `prometheus` is None where none is configured."""

    def __init__(
        self,
        pods: WatchCache[PodRecord],
        demand: GatewayDemand,
        states: ReplicaStates,
        cold_starts: ColdStarts,
        prometheus: PrometheusSignals | None,
    ) -> None:
        self._pods = pods
        self._demand = demand
        self._states = states
        self._cold_starts = cold_starts
        self._prometheus = prometheus

    def look(self, model: str, uid: str, dialect: str | None, mind: Mind, now: float) -> View:
        """See "namespace/name" at `now`; what arrived since the last look is counted in `mind`."""
        owned = [pod for pod in self._pods.by_index(model) if uid in pod.owner_uids]
        counted = census(model, owned, self._states.get)
        demand = self._demand.snapshot(model, now)
        expected = self._prometheus is not None and dialect is not None
        engines = self._prometheus.signals(model, now) if self._prometheus and dialect else None
        seen = signals(
            now,
            demand,
            counted,
            engines,
            previous=mind.totals,
            metrics=expected,
            lead_times=self._cold_starts.history(model).lead_times(),
        )
        mind.totals = seen.totals
        return View(
            pods=tuple(_as_launched(counted)),
            census=counted,
            signals=seen,
            load=Load(demand.by_pod, known=not demand.stale),
            metrics=self._metrics(dialect, seen, mind, now),
        )

    def _metrics(
        self, dialect: str | None, seen: ModelSignals, mind: Mind, now: float
    ) -> Verdict | None:
        health = self._prometheus.health if self._prometheus is not None and dialect else None
        why = f"The count is held: {seen.stale_why}." if seen.stale else None
        if why is None and health is not None and not health.ok:
            why = f"{health.why.rstrip('.')}."
        if mind.still_stale(why is not None, now):
            return conditions.metrics(False, why or "")
        if why is not None:
            return None
        if self._prometheus is None:
            told = "No Prometheus is configured; demand at the gateways alone sets the count."
            return conditions.metrics(None, told)
        if health is None:
            told = "engine.metrics is not set; demand at the gateways alone sets the count."
            return conditions.metrics(None, told)
        return conditions.metrics(True, f"{health.why.rstrip('.')}.")


def _as_launched(counted: Census) -> list[PodRecord]:
    """The Pods, ready as the census says: launchers are heard a second before kubelet."""
    pods: dict[str, PodRecord] = {}
    for one in counted.seen:
        if one.standing in ("ready", "starting") and one.pod.ready != (one.standing == "ready"):
            pods[one.pod.uid] = dataclasses.replace(one.pod, ready=one.standing == "ready")
        else:
            pods.setdefault(one.pod.uid, one.pod)
    return list(pods.values())
