"""A keyed, level-triggered queue: what to look at next, never what happened.

A key is a question ("is this object as it should be?"), so asking twice while it waits is asking
once, and a key that is being worked on is asked again afterwards, never twice at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from glowplug.control.logs import about
from glowplug.kube import ApiError

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a failing key waits: `base * 2**failures` seconds, at most `cap`, less jitter."""

    base: float = 0.5
    cap: float = 60.0
    jitter: float = 0.2

    def delay(self, failures: int, chance: float) -> float:
        """Seconds after failure number `failures` (from 0); `chance` in [0, 1) spreads herds."""
        full = min(self.cap, self.base * 2.0 ** min(failures, 32))
        return full * (1.0 - self.jitter * chance)


class KeyedQueue(Generic[K]):
    """Keys by the moment they are due, each held once; moments are seconds of `clock`."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        backoff: Backoff | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._backoff = backoff or Backoff()
        self._chance = chance
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._working: set[K] = set()
        self._failures: dict[K, int] = {}
        self._not_before: dict[K, float] = {}
        self._changed = asyncio.Event()

    def add(self, key: K, after: float = 0.0) -> None:
        """Ask for `key` in `after` seconds; earlier requests stay, a failing key keeps waiting."""
        due = max(self._clock() + after, self._not_before.get(key, 0.0))
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._changed.set()

    def forgive(self, key: K) -> None:
        """Forget the failures of `key`: its object changed, so they say nothing any more."""
        self._failures.pop(key, None)
        self._not_before.pop(key, None)

    def discard(self, key: K) -> None:
        """Forget `key` altogether; its object is gone."""
        self.forgive(key)
        self._due.pop(key, None)

    async def get(self) -> tuple[K, float]:
        """Wait for a due key that nobody works on; returns it and for how long it was due (s)."""
        while True:
            self._changed.clear()
            taken = self._take()
            if taken is not None:
                return taken
            wait = self._heap[0][0] - self._clock() if self._heap else None
            # Not wait_for: before Python 3.12 it may swallow a cancellation that meets the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()

    def done(self, key: K, again: float | None = None) -> None:
        """Say that the work on `key` went well, and in how many seconds to look at it again."""
        self.forgive(key)
        self._release(key)
        if again is not None:
            self.add(key, again)

    def failed(self, key: K) -> float:
        """Say that the work on `key` failed; returns the seconds until the next try."""
        failures = self._failures.get(key, 0)
        delay = self._backoff.delay(failures, self._chance())
        self._failures[key] = failures + 1
        self._not_before[key] = self._clock() + delay
        if key in self._due:
            del self._due[key]
        self._release(key)
        self.add(key)
        return delay

    def depth(self) -> int:
        """How many keys are due now."""
        now = self._clock()
        return sum(due <= now and key not in self._working for key, due in self._due.items())

    def is_busy(self) -> bool:
        """Whether a key is due that no worker has come to yet."""
        return bool(self._heap) and self._heap[0][0] <= self._clock()

    def age(self) -> float:
        """For how long the key that waits longest has been due (s)."""
        now = self._clock()
        waiting = (due for key, due in self._due.items() if key not in self._working)
        return max(0.0, now - min(waiting, default=now))

    def _take(self) -> tuple[K, float] | None:
        now = self._clock()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) != due or key in self._working:
                continue  # superseded, or `_release` puts it back
            del self._due[key]
            self._working.add(key)
            return key, now - due
        return None

    def _release(self, key: K) -> None:
        self._working.discard(key)
        due = self._due.get(key)
        if due is not None:
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._changed.set()


Handle = Callable[[K], Awaitable[float | None]]


async def work(
    queue: KeyedQueue[K],
    handle: Handle[K],
    *,
    workers: int = 8,
    waited: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Work off `queue` for ever; `handle` returns the seconds until its key's next turn, or None.

    `waited` hears for how long each key had been due.

    A handler that raises costs its own key a backoff and nothing else.
    """
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(_worker(queue, handle, waited))


async def _worker(queue: KeyedQueue[K], handle: Handle[K], waited: Callable[[float], None]) -> None:
    while True:
        key, overdue = await queue.get()
        waited(overdue)
        try:
            with about(key):
                again = await handle(key)
        except Exception as error:
            told = {"object": str(key), "retry_s": round(queue.failed(key), 2)}
            # The API server's refusals speak for themselves; anything else is a fault of ours.
            trace = not isinstance(error, ApiError)
            log.warning("reconcile failed: %s", error, exc_info=trace, extra=told)
        else:
            queue.done(key, again)
        # Where nothing is to be written nothing waits either, and what is true would go unseen.
        await asyncio.sleep(0)
