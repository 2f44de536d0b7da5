"""A request that is understood: placed or held, sent, retried, answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from glowplug.gateway.answer import Answer
from glowplug.gateway.demand import DemandStream, FirstToken
from glowplug.gateway.metrics import Metrics
from glowplug.gateway.model import EngineState, ServedModel
from glowplug.gateway.progress import Progress
from glowplug.gateway.proxy import Address, EngineGone, EnginePool, Headers, Reply
from glowplug.gateway.proxy.wire import request_head
from glowplug.gateway.refusal import Refusal
from glowplug.gateway.traffic import Held, ModelTraffic


@dataclass(frozen=True, slots=True)
class Patience:
    """When held clients hear something (s), and how often a request looks for a living engine."""

    comments_after: float = 5.0
    comments_period: float = 1.0
    unreachable: int = 10


@dataclass(slots=True)
class Call:
    """One request on its way to an engine. received: loop time, s."""

    reply: Reply
    model: ServedModel
    traffic: ModelTraffic
    stream: bool
    received: float
    target: bytes
    headers: Headers
    body: bytes
    engine: EngineState | None = None  # where it is, or where it failed last
    at_engine: bool = False
    sent: float = 0.0
    waited: float = 0.0
    wakes: bool = False  # the first held request of a model at zero
    retried: bool = False
    progress: Progress | None = None

    @property
    def patience(self) -> float:
        """How much longer it may be held, s."""
        longest = self.model.max_hold if self.stream else self.model.max_hold_plain
        return longest - self.waited

    def to(self, address: Address) -> bytes:
        """The request as the engine gets it."""
        head = request_head(b"POST", self.target, address, self.headers, len(self.body))
        return head + self.body


@dataclass(slots=True)
class Delivery:
    """Brings calls to engines and their answers back.

    doubt: told of engines that failed a connection; clock: loop time; wall: epoch seconds.
    """

    pool: EnginePool
    doubt: Callable[[EngineState], None]
    metrics: Metrics
    demand: DemandStream
    clock: Callable[[], float]
    wall: Callable[[], float]
    patience: Patience = field(default_factory=Patience)

    async def deliver(self, call: Call) -> None:
        """Answer one call, from whichever engine can. Raises Refusal."""
        failures = 0
        try:
            while (failure := await self._attempt(call)) is not None:
                failures += 1
                if (failure.sent and call.retried) or failures >= self.patience.unreachable:
                    raise Refusal(
                        502,
                        f"Engines of the model '{call.model.key}' failed {failures} times before "
                        f"answering ({failure}). Send the request again later.",
                        code="engine_failed",
                    )
                # An engine that was never reached has cost no try.
                call.retried = call.retried or failure.sent
                reason = "died" if failure.sent else "unreachable"
                self.metrics.retried(call.model.key, reason)
        finally:
            if call.progress is not None:
                call.progress.stop()

    async def _attempt(self, call: Call) -> EngineGone | None:
        """Send to one engine. The failure, when another one may still answer."""
        engine = call.traffic.take(call.engine) or await self._hold(call)
        address = engine.address
        assert address is not None, "an engine without an address is never usable"
        call.engine, call.at_engine, call.sent = engine, True, self.clock()
        answer = Answer(call.reply, call.progress, lambda: self._first_token(call))
        served = True
        try:
            await self.pool.exchange(address, call.to(address), answer)
            if answer.looks_cut:
                answer.cut("its stream ended without [DONE]")
            else:
                answer.finish()
        except EngineGone as gone:
            self.doubt(engine)
            if not answer.forwarded:
                served = False
                return gone
            answer.cut(str(gone))
        finally:
            call.at_engine = False
            if served:
                call.traffic.complete(self.clock() - call.sent)
            call.traffic.give_back(engine)
        return None

    async def _hold(self, call: Call) -> EngineState:
        held = call.traffic.hold(call.engine)
        call.wakes = call.wakes or held.first
        if call.stream:
            self._keep_informed(call)
        began = self.clock()
        timer = asyncio.get_running_loop().call_later(
            call.patience, lambda: call.traffic.refuse(held, self._held_too_long(call))
        )
        try:
            return await held.granted
        except asyncio.CancelledError:
            _return_unused(call.traffic, held)
            raise
        finally:
            timer.cancel()
            call.traffic.leave(held)
            waited = self.clock() - began
            call.waited += waited
            self.metrics.held(call.model.key, waited)

    def _keep_informed(self, call: Call) -> None:
        if call.progress is None:
            call.progress = Progress(
                call.reply,
                received=call.received,
                after=self.patience.comments_after,
                period=self.patience.comments_period,
                stage=lambda: "first_token" if call.at_engine else call.traffic.stage,
                estimate=call.model.estimate,
            )
            call.progress.start()

    def _held_too_long(self, call: Call) -> Refusal:
        limit = "maxHold" if call.stream else "maxHoldPlain"
        advice = "Try again later" if call.stream else 'Try again, or send "stream": true'
        estimate = call.model.estimate or 0.0
        elapsed = self.clock() - call.received
        return Refusal(
            503,
            f"The model '{call.model.key}' was not ready in time (spec.gateway.{limit}; "
            f"stage: {call.traffic.stage}). {advice}.",
            code="model_not_ready",
            retry_after=min(60.0, max(5.0, estimate - elapsed)),
        )

    def _first_token(self, call: Call) -> None:
        now = self.clock()
        self.metrics.first_token(call.model.key, now - call.received)
        if not call.wakes or call.engine is None:
            return
        call.wakes = False
        offset = self.wall() - now
        self.demand.first_token(
            FirstToken(
                model=call.model.key,
                pod=call.engine.replica.pod_uid,
                received=call.received + offset,
                sent=call.sent + offset,
                first_token=now + offset,
                replica_ready=call.engine.ready_at,
            )
        )


def _return_unused(traffic: ModelTraffic, held: Held) -> None:
    # The client left between the grant and its use.
    if held.granted.done() and not held.granted.cancelled() and not held.granted.exception():
        traffic.give_back(held.granted.result())
