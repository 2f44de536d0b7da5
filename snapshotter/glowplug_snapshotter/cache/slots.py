"""The few buffers that all downloads share, and the threads that touch disk and store for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

THREADS_BESIDE = 4  # that read, write and hash while every slot's thread waits for the store


class Room:
    """One buffer, lent: `with` gives it back."""

    def __init__(self, slots: Slots, buffer: bytearray) -> None:
        self._slots = slots
        self._buffer = buffer

    def __enter__(self) -> Room:
        return self

    def __exit__(self, *_: object) -> None:
        self._slots.give(self._buffer)

    def view(self, length: int) -> memoryview:
        """Return the buffer's first `length` bytes; it grows to the largest chunk met."""
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        return memoryview(self._buffer)[:length]


class Slots:
    """At most `count` chunks on their way; memory is `count` chunks whatever comes."""

    def __init__(self, count: int) -> None:
        self._buffers = [bytearray() for _ in range(count)]
        self._queue: deque[asyncio.Future[None]] = deque()
        self._threads = ThreadPoolExecutor(count + THREADS_BESIDE, thread_name_prefix="cache")

    @property
    def free(self) -> int:
        """Slots that nobody has or waits for."""
        return max(0, len(self._buffers) - len(self._queue))

    def take_now(self) -> Room:
        """Take a slot that is `free`; the one used last, whose memory is warm."""
        return Room(self, self._buffers.pop())

    async def take(self) -> Room:
        """Wait for a slot."""
        while not self._buffers:
            future = asyncio.get_running_loop().create_future()
            self._queue.append(future)
            try:
                await future
            finally:
                if future in self._queue:
                    self._queue.remove(future)
        return self.take_now()

    def give(self, buffer: bytearray) -> None:
        """Take a buffer back, and wake who waits longest."""
        self._buffers.append(buffer)
        if self._queue:
            future = self._queue.popleft()
            if not future.done():
                future.set_result(None)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work in a thread; one who is cancelled still waits for the thread's end.

        The thread may hold a buffer, which must not be given to another before.
        """
        future = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: work(*args, **kwargs)
        )
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise

    def close(self) -> None:
        """Start nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
