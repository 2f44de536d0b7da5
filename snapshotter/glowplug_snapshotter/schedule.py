"""Hands out a ring's work to its threads: ranges of chunks in memory first, then new chunks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from glowplug_snapshotter.chunks import Part, Place


class Schedule:
    """At most `slots` chunks are in memory; threads whose number is not below `limit()` wait."""

    def __init__(self, places: Iterator[Place], slots: int, limit: Callable[[], int]) -> None:
        self._places = places
        self._slots = slots
        self._limit = limit
        self._ready: deque[Part] = deque()
        self._opening = 0
        self._in_memory = 0
        self._over = False
        self._changed = threading.Condition()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is handed out."""
        return self._over

    def take(self, thread: int) -> Place | Part | None:
        """Wait for work: a range to read, or a chunk to open; None at the end.

        Who gets a chunk calls `opened` with its ranges, and `freed` when its memory is free.
        """
        with self._changed:
            while not self._over:
                found = self._find() if thread < self._limit() else None
                if found is not None:
                    return found
                if not self._over:
                    self._changed.wait()
        return None

    def opened(self, parts: Sequence[Part]) -> None:
        """Let others read ranges of a chunk that was handed out."""
        with self._changed:
            self._ready.extend(parts)
            self._opening -= 1
            self._changed.notify_all()

    def freed(self) -> None:
        """Note that the memory of a chunk is free again."""
        with self._changed:
            self._in_memory -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Look again: the limit has changed."""
        with self._changed:
            self._changed.notify_all()

    def _find(self) -> Place | Part | None:
        if self._ready:
            return self._ready.popleft()
        if self._in_memory == self._slots:
            return None
        place = next(self._places, None)
        if place is not None:
            self._in_memory += 1
            self._opening += 1
        elif not self._opening:
            self._over = True
            self._changed.notify_all()
        return place
