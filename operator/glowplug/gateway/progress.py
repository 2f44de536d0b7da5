"""SSE comments to a client whose request is held, until the engine's first byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from glowplug.gateway import sse
from glowplug.gateway.proxy import Reply


class Progress:
    """Speaks `after` s from the request's arrival on, about every `period` s.

    The first comment sends the response's head, so from then on errors are events. stage: what
    the request waits for now.
    """

    def __init__(
        self,
        reply: Reply,
        *,
        received: float,
        after: float,
        period: float,
        stage: Callable[[], str],
        estimate: float | None,
    ) -> None:
        self._reply = reply
        self._received = received
        self._after = after
        self._period = period
        self._stage = stage
        self._estimate = estimate
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._said: tuple[str, float] = ("", 0.0)

    def start(self) -> None:
        """Begin, unless it has begun already."""
        if self._timer is None:
            due = max(self._received + self._after, self._loop.time())
            self._timer = self._loop.call_at(due, self._tick)

    def stop(self) -> None:
        """Say no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self._loop.time()
        stage = self._stage()
        said, when = self._said
        # Looked at more often than spoken, so that a change of stage is told soon.
        if stage != said or now - when >= self._period * 0.99:
            if self._reply.status == 0:
                self._reply.start(200, sse.HEAD)
            self._reply.write(sse.comment(stage, now - self._received, self._estimate))
            self._said = (stage, now)
        self._timer = self._loop.call_later(self._period / 4, self._tick)
