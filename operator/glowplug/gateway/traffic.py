"""One model's traffic: which replica a request goes to, and which requests wait for one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from glowplug.gateway.model import EngineState, ServedModel, progress
from glowplug.gateway.refusal import Refusal


class Held:
    """A request that waits for a replica."""

    __slots__ = ("avoid", "first", "granted", "since")

    def __init__(self, avoid: EngineState | None, first: bool, since: float) -> None:
        self.avoid = avoid
        self.since = since
        self.first = first  # the one that woke a model at zero
        self.granted: asyncio.Future[EngineState] = asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class Totals:
    """Since the gateway started; busy_seconds sums the service times of completions."""

    arrivals: int = 0
    completions: int = 0
    busy_seconds: float = 0.0


class ModelTraffic:
    """Balances and holds. Requests that wait are served in the order of their arrival.

    on_change(key, urgent) is called whenever a number of the demand stream has changed.
    """

    def __init__(
        self, key: str, clock: Callable[[], float], on_change: Callable[[str, bool], None]
    ) -> None:
        self.key = key
        self.model: ServedModel | None = None
        self.engines: dict[tuple[str, int, int], EngineState] = {}
        self.totals = Totals()
        self._clock = clock
        self._on_change = on_change
        self._held: OrderedDict[Held, None] = OrderedDict()

    @property
    def held(self) -> int:
        """Requests that wait."""
        return len(self._held)

    @property
    def longest_held(self) -> float:
        """For how long the oldest of those who wait has waited (s); 0 when nobody does."""
        now = self._clock()
        return max((now - held.since for held in self._held), default=0.0)

    @property
    def in_flight(self) -> int:
        """Requests at engines."""
        return sum(engine.in_flight for engine in self.engines.values())

    @property
    def serving(self) -> bool:
        """Whether some replica takes requests now."""
        return any(engine.usable for engine in self.engines.values())

    @property
    def stage(self) -> str:
        """What a held request waits for: the furthest stage any replica has reached."""
        stages = [e.stage for e in self.engines.values() if not e.replica.draining]
        return max(stages, key=progress, default="decide")

    def complete(self, seconds: float) -> None:
        """Count a request that an engine has ended, after so many seconds there."""
        self.totals.completions += 1
        self.totals.busy_seconds += seconds

    def take(self, avoid: EngineState | None = None) -> EngineState | None:
        """The least loaded replica, at once; None when there is none or others wait already.

        avoid: where the request failed before; a request without it has just arrived.
        """
        if self._held:
            return None
        engine = self._least_loaded(avoid)
        if engine is not None:
            self._occupy(engine)
            self.totals.arrivals += avoid is None
        return engine

    def hold(self, avoid: EngineState | None = None) -> Held:
        """Join those who wait; one that failed before goes to the front. Raises Refusal."""
        model = self.model
        if model is None:
            raise deleted(self.key)
        if model.pinned == 0 and not self.serving:
            raise pinned(self.key)
        if len(self._held) >= model.max_held and avoid is None:
            raise Refusal(
                503,
                f"The model '{self.key}' is starting and {model.max_held} requests wait for it "
                "already (spec.gateway.maxHeld). Try again later.",
                code="too_many_held_requests",
                retry_after=5.0,
            )
        at_zero = all(engine.replica.draining for engine in self.engines.values())
        held = Held(avoid, first=at_zero and not self._held, since=self._clock())
        self._held[held] = None
        if avoid is None:
            self.totals.arrivals += 1
        else:
            self._held.move_to_end(held, last=False)
        self._on_change(self.key, len(self._held) == 1)
        self.release()
        return held

    def leave(self, held: Held) -> None:
        """Forget a request that waits no more."""
        if held in self._held:
            del self._held[held]
            self._on_change(self.key, False)

    def give_back(self, engine: EngineState) -> None:
        """A request has left its engine."""
        engine.in_flight -= 1
        self._on_change(self.key, engine.replica.draining and engine.in_flight == 0)
        self.release()

    def release(self) -> None:
        """Send those who wait to the replicas that have room for them."""
        slots = self.model.slots if self.model is not None else 1
        while self._held:
            held = next(iter(self._held))
            engine = self._least_loaded(held.avoid, below=slots)
            if engine is None:
                return
            del self._held[held]
            self._occupy(engine)
            held.granted.set_result(engine)

    def refuse_held(self, refusal: Callable[[], Refusal]) -> None:
        """End every wait."""
        for held in list(self._held):
            self.refuse(held, refusal())

    def refuse(self, held: Held, refusal: Refusal) -> None:
        """End one wait without a replica."""
        self.leave(held)
        if not held.granted.done():
            held.granted.set_exception(refusal)

    def _occupy(self, engine: EngineState) -> None:
        engine.in_flight += 1
        engine.last_used = self._clock()
        self._on_change(self.key, False)

    def _least_loaded(
        self, avoid: EngineState | None, below: int | None = None
    ) -> EngineState | None:
        usable = [
            engine
            for engine in self.engines.values()
            if engine.usable and (below is None or engine.in_flight < below)
        ]
        others = [engine for engine in usable if engine is not avoid]
        return min(others or usable, key=_load, default=None)


def _load(engine: EngineState) -> tuple[int, float]:
    return engine.in_flight, engine.last_used


def deleted(key: str) -> Refusal:
    """The answer to requests of a model that is no more."""
    return Refusal(
        404,
        f"The model '{key}' was deleted. GET /v1/models lists the models served here.",
        code="model_not_found",
        param="model",
    )


def pinned(key: str) -> Refusal:
    """The answer to requests of a model that a person has switched off."""
    namespace, name = key.split("/", 1)
    return Refusal(
        503,
        f"The model '{key}' is pinned to 0 replicas (spec.replicas). "
        f"`glowplug release {name} -n {namespace}` lets it start on demand again.",
        code="model_switched_off",
        retry_after=60.0,
    )
