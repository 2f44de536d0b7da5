"""From the observations of one model to the replicas that it should have.

The policy is reactive: replicas for the requests that are there, at once; what was needed lately
is held; nothing is released on missing, broken or stale signals. It counts time by what it saw
(`Clock`), and learns what one replica can take (`Capacity`). A decision depends on the current
demand only through sums and maxima, so more demand never gives fewer replicas.
"""

import math
from dataclasses import dataclass

from glowplug.api import Scaling, Warmth
from glowplug.decide import capacity, hold
from glowplug.decide.clock import Clock
from glowplug.decide.decision import Chain, Decision
from glowplug.decide.floors import CronFloor, Warm, warm_floor
from glowplug.decide.observation import DemandHistory, Observation, Prices, count, seconds


@dataclass(frozen=True, slots=True)
class _Demand:
    """Requests now; what is missing is what it was last. `whole` when nothing is missing."""

    running: float
    waiting: float
    held: float
    whole: bool

    @property
    def total(self) -> float:
        return self.running + self.waiting + self.held


@dataclass(frozen=True, slots=True)
class _Found:
    """Replicas that were there when the first complete observation came."""

    at: float  # watched seconds
    hot: int
    asleep: int


class Autoscaler:
    """The policy of one model; its state is what it observed, so equal observations decide alike.

    `history` says how long the model was idle before the first step: without it nothing is
    released within the first `idleAfter`. `prices` belong to the interface and are not weighed
    by this policy.
    """

    def __init__(
        self,
        scaling: Scaling,
        warmth: Warmth | None = None,
        history: DemandHistory | None = None,
        prices: Prices | None = None,
    ) -> None:
        self.scaling = scaling
        self.warmth = warmth
        self.prices = prices
        self._idle_before = history.seconds_since_last() if history is not None else 0.0
        self._clock = Clock(patience=scaling.idle_after)
        self._capacity = capacity.Capacity(scaling.target_queue_depth)
        self._hold = hold.Hold(scaling.idle_after)
        self._cron = [CronFloor(schedule) for schedule in scaling.schedule]
        self._cron_floor = 0
        self._seen = _Demand(0.0, 0.0, 0.0, whole=False)
        self._ready = 0.0
        self._cold: float | None = None
        self._demanded_at: float | None = None
        self._found: _Found | None = None
        self._last: Decision | None = None

    def step(self, seen: Observation) -> Decision:
        """Decide; call it with one observation after the other, at any interval."""
        at = self._clock.advance(seen.now)
        demand = self._demand(seen)
        supply = self._supply(seen)
        self._cold = seconds(seen.lead_times.cold) or self._cold
        if self._found is None and supply is not None:
            self._found = _Found(at, supply, int(count(seen.asleep) or 0))

        chain = self._needed(at, seen, demand)
        self._hold_what_was_needed(chain, at, seen, demand)
        asleep = self._floors(chain, at, seen)
        chain.at_most("maxReplicas", self.scaling.max_replicas, self._limited(chain.count))
        decision = Decision(chain.count, asleep, chain.reason, tuple(chain.steps))
        self._remember(at, seen, demand, decision)
        return decision

    def _demand(self, seen: Observation) -> _Demand:
        """Running, waiting and held; of a stale observation only held is taken."""
        signals = (seen.running, seen.waiting, seen.held)
        running, waiting, held = (count(signal) for signal in signals)
        arrivals_known = count(seen.arrivals) is not None
        whole = None not in (running, waiting, held) and arrivals_known and not seen.stale
        if seen.stale:
            running = waiting = None
        return _Demand(
            self._seen.running if running is None else running,
            self._seen.waiting if waiting is None else waiting,
            self._seen.held if held is None else held,
            whole,
        )

    def _supply(self, seen: Observation) -> int | None:
        """Hot replicas, ready and starting; None when that is not known."""
        ready, starting = count(seen.ready), count(seen.starting)
        self._ready = self._ready if ready is None else ready
        return None if ready is None or starting is None else int(ready + starting)

    def _needed(self, at: float, seen: Observation, demand: _Demand) -> Chain:
        """Replicas for the requests that are there."""
        each, source = self._each(seen)
        needed = math.ceil(demand.total / each)
        parts = f"{demand.running:g} running, {demand.waiting:g} waiting, {demand.held:g} held"
        chain = Chain(needed, f"{parts}: {_replicas(needed)} at {each:g} requests each.")
        if demand.total == 0:
            chain.reason = self._idle_reason(at)
        chain.note("demand", demand.total, f"{parts}.")
        chain.note("capacity", each, f"Requests that one replica takes: {source}.")
        chain.note("needed", needed, chain.reason)
        depth = self.scaling.target_queue_depth
        if self._capacity.saturated and self._capacity.shows_saturation(
            demand.waiting, self._ready
        ):
            beyond = demand.waiting - depth * self._ready
            chain.at_least(
                "saturation",
                int(self._ready) + math.ceil(beyond / each),
                f"{demand.waiting:g} requests wait at {_replicas(int(self._ready))},"
                f" more than {depth} each.",
            )
        return chain

    def _idle_reason(self, at: float) -> str:
        if self._demanded_at is None:
            return f"0 requests came in the {at:.0f} s since the start."
        return f"0 requests are there, the last was {at - self._demanded_at:.0f} s ago."

    def _each(self, seen: Observation) -> tuple[float, str]:
        """Requests that one replica takes, and how that is known."""
        slots = count(seen.slots)
        if self.scaling.target_concurrency is not None:
            return float(self.scaling.target_concurrency), "scaling.targetConcurrency"
        if slots:
            return max(slots, 1.0), "slots of the engine"
        if self._capacity.value is not None:
            return self._capacity.value, "learned from saturation"
        return capacity.DEFAULT, "assumed until saturation shows it"

    def _hold_what_was_needed(
        self, chain: Chain, at: float, seen: Observation, demand: _Demand
    ) -> None:
        self._hold.observe(at, min(chain.count, self.scaling.max_replicas))
        idle_after = self.scaling.idle_after
        within = hold.hold_of(idle_after, self._lead(seen))
        highest = self._hold.highest(at, within)
        chain.at_least(
            "hold", highest, f"{_replicas(highest)} were needed within the last {within:.0f} s."
        )
        serving = self._last is not None and self._last.replicas > 0
        if demand.total > 0 or (serving and (count(seen.arrivals) or 0) > 0):
            self._demanded_at = at
        if self._demanded_at is not None and at - self._demanded_at < idle_after:
            idle = at - self._demanded_at
            chain.at_least(
                "idleAfter", 1, f"Idle for {idle:.0f} s of the {idle_after:.0f} s before zero."
            )

    def _lead(self, seen: Observation) -> float | None:
        """Seconds until a replica that was released would be back."""
        paths = (seen.lead_times.cold, seen.lead_times.cached)
        known = [path for path in map(seconds, paths) if path is not None]
        return max(known, default=self._cold)

    def _floors(self, chain: Chain, at: float, seen: Observation) -> int:
        """Raise the count to every floor; returns the replicas wanted asleep."""
        chain.at_least(
            "minReplicas",
            self.scaling.min_replicas,
            f"scaling.minReplicas keeps {_replicas(self.scaling.min_replicas)}.",
        )
        scheduled = self._scheduled(seen.now)
        chain.at_least("schedule", scheduled, f"A schedule keeps {_replicas(scheduled)}.")
        warm = self._warm(seen)
        chain.at_least("warmth", warm.hot, warm.why)
        if warm.asleep:
            chain.note("asleep", warm.asleep, warm.why)
        return self._keep_blind(chain, at, seen, warm.asleep)

    def _warm(self, seen: Observation) -> Warm:
        return warm_floor(self.warmth, seen.lead_times, count(seen.standbys) or 0.0, self._cold)

    def _scheduled(self, now: float) -> int:
        known = seconds(now)
        if known is not None:
            self._cron_floor = max((floor.at(known) for floor in self._cron), default=0)
        return self._cron_floor

    def _keep_blind(self, chain: Chain, at: float, seen: Observation, asleep: int) -> int:
        """Nothing is released on signals that are not all there, nor right after a restart."""
        if self._found is not None and (left := self._restart_ends() - at) > 0:
            chain.at_least(
                "restart",
                self._found.hot,
                f"Found {_replicas(self._found.hot)} at the start; kept for {left:.0f} s more.",
            )
            asleep = max(asleep, self._found.asleep)
        if self._blind(seen):
            hot = self._last.replicas if self._last else self._found.hot if self._found else 0
            chain.at_least("signals", hot, f"Signals are missing: {_replicas(hot)} are kept.")
            asleep = max(asleep, self._last.asleep if self._last else 0)
        return min(asleep, self.scaling.max_replicas)

    def _restart_ends(self) -> float:
        """When what was found may be released, in watched seconds."""
        assert self._found is not None
        return self._found.at + self.scaling.idle_after - self._idle_before

    @staticmethod
    def _blind(seen: Observation) -> bool:
        signals = (seen.running, seen.waiting, seen.held, seen.arrivals, seen.ready, seen.starting)
        missing = any(count(signal) is None for signal in signals)
        broken_slots = seen.slots is not None and not count(seen.slots)
        return seen.stale or missing or broken_slots or seconds(seen.now) is None

    def _remember(self, at: float, seen: Observation, demand: _Demand, decision: Decision) -> None:
        """Learn after deciding: the current demand must not change what it is measured by."""
        if demand.whole and count(seen.ready) is not None:
            self._capacity.observe(at, demand.running, demand.waiting, self._ready)
        self._seen = demand
        self._last = decision

    def _limited(self, wanted: int) -> str:
        limit = self.scaling.max_replicas
        return f"{_replicas(wanted)} are wanted, scaling.maxReplicas allows {limit}."


def _replicas(number: int) -> str:
    return "1 replica" if number == 1 else f"{number} replicas"
