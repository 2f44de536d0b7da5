"""When an engine is ready, learned from its launcher at once rather than from the kubelet.

A launcher is asked with a long poll; an engine without one is asked at its health path. An engine
that failed a connection is asked at its health path before it is used again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from glowplug.gateway.model import EngineState

logger = logging.getLogger(__name__)

# The stage of an engine that was there and is no more: its container has to come again.
_AWAY = "image"

# A connection kept open to an engine would look like a request to a launcher that drains it.
_ONCE = {"Connection": "close"}

# Nothing listens, or what listens there does not speak as a launcher does.
_NO_STATE = (
    aiohttp.ClientError,
    TimeoutError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often engines are asked, s."""

    health: float = 0.1  # an engine without a launcher, until it is ready
    health_ready: float = 1.0
    retry: float = 0.05  # a launcher that does not answer, growing to retry_longest
    retry_longest: float = 0.25
    long_poll: float = 10.0
    answer: float = 2.0


class Readiness:
    """Keeps `ready`, `trusted` and `stage` of every watched engine.

    wall: seconds since the epoch.
    """

    def __init__(
        self, session: aiohttp.ClientSession, wall: Callable[[], float], pace: Pace | None = None
    ) -> None:
        self._session = session
        self._wall = wall
        self._pace = pace or Pace()
        self._watches: dict[EngineState, tuple[asyncio.Task[None], Callable[[], None]]] = {}
        self._checks: dict[EngineState, asyncio.Task[None]] = {}

    def watch(self, engine: EngineState, changed: Callable[[], None]) -> None:
        """Begin to watch; `changed` is called after each change."""
        self.forget(engine)
        follow = self._follow_launcher if engine.replica.launcher_port else self._follow_health
        self._watches[engine] = (asyncio.create_task(follow(engine, changed)), changed)

    def forget(self, engine: EngineState) -> None:
        """Watch no more; the engine counts as not ready."""
        watch = self._watches.pop(engine, None)
        check = self._checks.pop(engine, None)
        for task in (watch[0] if watch else None, check):
            if task is not None:
                task.cancel()
        engine.ready = False

    def doubt(self, engine: EngineState) -> None:
        """A connection failed: use it again only after its health path has answered."""
        engine.trusted = False
        engine.stage = _AWAY
        if engine in self._watches and engine not in self._checks:
            changed = self._watches[engine][1]
            task = asyncio.create_task(self._check(engine, changed))
            self._checks[engine] = task
            task.add_done_callback(lambda done: self._checked(engine, done))

    async def close(self) -> None:
        """End every watch."""
        tasks = [task for task, _ in self._watches.values()] + [*self._checks.values()]
        for engine in list(self._watches):
            self.forget(engine)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _checked(self, engine: EngineState, done: asyncio.Task[None]) -> None:
        if self._checks.get(engine) is done:
            del self._checks[engine]

    async def _check(self, engine: EngineState, changed: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(self._pace.health)
            if await self._healthy(engine):
                engine.trusted = True
                engine.stage = "route" if engine.ready else engine.stage
                changed()
                return

    async def _follow_health(self, engine: EngineState, changed: Callable[[], None]) -> None:
        while True:
            self._set_ready(engine, await self._healthy(engine), changed)
            await asyncio.sleep(self._pace.health_ready if engine.ready else self._pace.health)

    async def _follow_launcher(self, engine: EngineState, changed: Callable[[], None]) -> None:
        seq: int | None = None
        pause = self._pace.retry
        while True:
            before = seq
            try:
                state = await self._launcher_state(engine, seq)
                seq = int(state["seq"])
                phase = str(state["phase"])
                stage = _current_stage(state)
            except _NO_STATE:
                # A launcher that starts anew counts from the beginning.
                seq = None
                self._set_ready(engine, False, changed)
                await asyncio.sleep(pause)
                pause = min(pause * 2, self._pace.retry_longest)
                continue
            if seq == before:
                await asyncio.sleep(self._pace.retry)  # never spin, whatever answers there
            pause = self._pace.retry
            self._set_ready(engine, phase == "ready", changed)
            if phase != "ready":
                engine.stage = stage

    async def _launcher_state(self, engine: EngineState, seq: int | None) -> dict[str, Any]:
        replica = engine.replica
        url = f"http://{replica.authority(replica.launcher_port)}/state"
        params = {} if seq is None else {"after": str(seq), "timeout": f"{self._pace.long_poll:g}"}
        wait = self._pace.answer + (0.0 if seq is None else self._pace.long_poll)
        timeout = aiohttp.ClientTimeout(total=wait, sock_connect=self._pace.answer)
        async with self._session.get(url, params=params, timeout=timeout) as response:
            response.raise_for_status()
            state: dict[str, Any] = await response.json(content_type=None)
            return state

    async def _healthy(self, engine: EngineState) -> bool:
        replica = engine.replica
        url = f"http://{replica.authority(replica.port)}{replica.health_path}"
        timeout = aiohttp.ClientTimeout(total=self._pace.answer)
        try:
            async with self._session.get(url, timeout=timeout, headers=_ONCE) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _set_ready(self, engine: EngineState, ready: bool, changed: Callable[[], None]) -> None:
        if ready == engine.ready:
            return
        engine.ready = ready
        engine.stage = "route" if ready else _AWAY
        if ready:
            engine.ready_at = self._wall()
        replica = engine.replica
        logger.info(
            "engine ready" if ready else "engine not ready",
            extra={"model": f"{replica.namespace}/{replica.model}", "pod": replica.pod},
        )
        changed()


def _current_stage(state: dict[str, Any]) -> str:
    blocking = [
        stage["name"]
        for stage in state.get("stages") or ()
        if not stage.get("hidden") and stage.get("end") is None
    ]
    return str(blocking[-1]) if blocking else str(state["phase"])
