"""Chunks on their way: each owns memory while it is read, and is read in one or several ranges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from glowplug_snapshotter.destinations import Destination, Room, Target
from glowplug_snapshotter.plan import Item, Plan

SMALLEST_RANGE = 2 << 20  # bytes; below that a request costs more than it brings


@dataclass(frozen=True, slots=True)
class Place:
    """One chunk of a plan: `number` counts through all files, `index` within its own."""

    number: int
    index: int
    item: Item
    offset: int
    length: int

    @property
    def expected(self) -> int | None:
        """The crc32c that the chunk must have, None where nobody knows."""
        return None if self.item.crc32c is None else self.item.crc32c[self.index]


def places(plan: Plan) -> Iterator[Place]:
    """Yield a plan's chunks in order; an empty file is one chunk of no bytes."""
    number = 0
    for item in plan.items:
        for index in range(count_of(item, plan.chunk_size)):
            offset = index * plan.chunk_size
            length = min(plan.chunk_size, item.entry.size - offset)
            yield Place(number, index, item, offset, length)
            number += 1


def count_of(item: Item, chunk_size: int) -> int:
    """Return how many chunks a file has."""
    return max(1, -(-item.entry.size // chunk_size))


def ranges(length: int, parts: int) -> list[tuple[int, int]]:
    """Cut a chunk into about `parts` ranges (offset in the chunk, length)."""
    each = max(SMALLEST_RANGE, -(-length // max(1, parts)))
    each = -(-each // 4096) * 4096
    return [(at, min(each, length - at)) for at in range(0, max(1, length), each)]


class OpenFile:
    """A file on its way, and how many of its chunks are missing."""

    __slots__ = ("left", "target")

    def __init__(self, target: Target, left: int) -> None:
        self.target = target
        self.left = left


class Chunk:
    """A chunk that has memory. `own` says that this memory is the target's."""

    __slots__ = ("file", "left", "own", "place", "room", "view")

    def __init__(self, place: Place, file: OpenFile, room: Room, *, own: bool) -> None:
        self.place = place
        self.file = file
        self.room = room
        self.own = own
        self.view = room.view[: place.length]
        self.left = 0

    def close(self) -> None:
        """Give the memory back."""
        self.view.release()
        self.room.close()


@dataclass(frozen=True, slots=True)
class Part:
    """One range of a chunk."""

    chunk: Chunk
    offset: int  # in the chunk
    length: int


class Buffers:
    """A few buffers of one chunk each, made when first needed and reused for ever."""

    def __init__(self, destination: Destination, size: int) -> None:
        self._destination = destination
        self._size = size
        self._free: list[memoryview] = []
        self._lock = threading.Lock()

    def take(self) -> _Buffer:
        """Return a buffer; who bounds the number of chunks bounds their memory."""
        with self._lock:
            view = self._free.pop() if self._free else None
        if view is None:
            view = self._destination.buffer(self._size)
        return _Buffer(view, self._free.append)


class _Buffer:
    """A ring's buffer as the room of a chunk."""

    def __init__(self, memory: memoryview, give_back: Callable[[memoryview], None]) -> None:
        self._memory = memory
        self._give_back = give_back
        self.view = memory[:]

    def close(self) -> None:
        """Return it to the ring."""
        self.view.release()
        self._give_back(self._memory)
