"""Bounds what a daemon gives to its peers: a token bucket in bytes per second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

BURST = 0.25  # s worth of bytes that may go at once


class Bucket:
    """Lets `rate` bytes per second pass; None is no bound. `clock` in seconds."""

    def __init__(self, rate: int | None, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at = clock()

    async def take(self, count: int) -> None:
        """Wait until `count` bytes may pass; who came first passes first."""
        if self._rate is None:
            return
        now = self._clock()
        self._free_at = max(self._free_at, now - BURST) + count / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
