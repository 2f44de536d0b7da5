"""Puts proved chunks together to tensors on a device, and hands those out in order.

A chunk is received into a slot, or into the tensor itself where it lies in one that the host can
write. Only when the ring records it, which it does once it is proved, do its bytes count: then the
copies begin, and the slot is used again when the event behind them has passed.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from glowplug_snapshotter.chunks import count_of
from glowplug_snapshotter.destinations import Room
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.gpu.device import Device, Event, Memory, Slot
from glowplug_snapshotter.gpu.host import HostMemory
from glowplug_snapshotter.loading.selection import Window
from glowplug_snapshotter.loading.slots import Slots
from glowplug_snapshotter.loading.tensor import Loaded
from glowplug_snapshotter.manifest import Tensor
from glowplug_snapshotter.plan import Item, Plan

T = TypeVar("T")


class Piece:
    """A tensor on its way: its memory once a chunk of it is under way, and what is missing."""

    __slots__ = ("begin", "end", "events", "memory", "missing", "tensor")

    def __init__(self, tensor: Tensor, base: int) -> None:
        self.tensor = tensor
        self.begin = tensor.begin - base  # in its window
        self.end = tensor.end - base
        self.missing = tensor.end - tensor.begin
        self.memory: Memory | None = None
        self.events: list[Event] = []

    def give(self) -> Memory | None:
        """Return its memory and keep no hold of it; None for a tensor without bytes."""
        memory, self.memory, self.events = self.memory, None, []
        return memory


class Assembly:
    """A destination of the ring that holds at most about `ahead` bytes nobody has taken yet.

    The tensor that is next in turn, and all before its end, come in whatever that bound.
    """

    def __init__(
        self, device: Device, windows: Sequence[Window], chunk_size: int, ahead: int
    ) -> None:
        self._device = device
        self._ahead = ahead
        self._slots = Slots(device, chunk_size)
        self._pieces = [[Piece(t, w.base) for t in w.tensors] for w in windows]
        self._targets: dict[str, WindowTarget] = {}
        chunks = 0
        for number, window in enumerate(windows):
            pieces = [piece for piece in self._pieces[number] if piece.missing]
            target = WindowTarget(self, number, chunks, chunk_size, pieces)
            self._targets[window.item.path] = target
            chunks += count_of(window.item, chunk_size)
        self._received: dict[int, Callable[[], None]] = {}  # by the chunk's number: makes it count
        self._turn = (0, 0)  # window, and where in it the next tensor in turn ends
        self._held = 0
        self._changed = threading.Condition()
        self._ended = False
        self._error: SnapshotError | None = None

    def tensors(self, finish: Callable[[Loaded], T]) -> Iterator[tuple[str, T]]:
        """Yield names and tensors in order, each when its copies have ended.

        A tensor's memory is the caller's from then on. Raises what `end` got.
        """
        for number, pieces in enumerate(self._pieces):
            for piece in pieces:
                with self._changed:
                    self._turn = number, piece.end
                    self._changed.notify_all()
                    while piece.missing and not self._ended:
                        self._changed.wait()
                    if piece.missing:
                        raise self._error or SnapshotError("Cancelled", "The load was cancelled.")
                for event in piece.events:  # in whatever order threads noted them
                    event.wait()
                with self._changed:
                    self._held -= piece.end - piece.begin
                tensor = piece.tensor
                yield tensor.name, finish(Loaded(tensor, piece.give(), self._device.dlpack))

    def end(self, error: SnapshotError | None) -> None:
        """Wake who waits: no more chunks come, and a late one does not count."""
        with self._changed:
            self._error = self._error or error
            self._ended = True
            self._received.clear()
            self._changed.notify_all()

    def prepare(self, plan: Plan) -> None:
        """Do nothing: memory is taken tensor by tensor."""

    def open(self, item: Item) -> WindowTarget:
        """Return the target of a window."""
        return self._targets[item.path]

    def buffer(self, size: int) -> memoryview:
        """Return memory for the second request of a straggler."""
        return HostMemory(size).view

    def recorded(self, chunk: int) -> int | None:
        """Return None: every load begins anew."""
        return None

    def record(self, chunk: int, crc: int) -> None:
        """Let the bytes of a chunk count: it was proved."""
        count = self._received.pop(chunk, None)  # none for a chunk without bytes
        if count is not None:
            count()

    def suspend(self) -> None:
        """Do nothing: nothing outlives a load."""

    def abandon(self) -> None:
        """Let go of the memory that nobody took, once the ring and the copies have ended."""
        self._targets.clear()
        self._slots.clear()
        for pieces in self._pieces:
            for piece in pieces:
                piece.give()

    def admit(self, window: int, pieces: Sequence[Piece], offset: int) -> None:
        """Wait until a chunk at `offset` may come, and give its tensors memory."""
        with self._changed:
            while not self._ended:
                new = [piece for piece in pieces if piece.memory is None and piece.missing]
                size = sum(piece.end - piece.begin for piece in new)
                if self._may_come(window, offset, size):
                    break
                self._changed.wait()
            else:
                raise SnapshotError("Cancelled", "The load was cancelled.")
            self._held += size
            for piece in new:
                piece.memory = self._device.allocate(piece.end - piece.begin)

    def _may_come(self, window: int, offset: int, size: int) -> bool:
        return (window, offset) < self._turn or self._held + size <= self._ahead

    def receive(self, chunk: int, view: memoryview, count: Callable[[], None]) -> Room:
        """Return memory for a chunk, whose bytes `count` makes count."""
        self._received[chunk] = count
        return _Room(view)

    def take_slot(self) -> Slot:
        """Return a slot for a chunk."""
        return self._slots.take()

    def copy(self, slot: Slot, copies: Sequence[tuple[Piece, int, int, int]]) -> Event:
        """Begin the copies of a chunk (tensor, from where in the slot, to where, length)."""
        for piece, start, offset, length in copies:
            if piece.memory is None:
                raise AssertionError("a chunk was read before its tensors had memory")
            self._device.copy(slot, start, piece.memory, offset, length)
        event = self._device.mark()
        self._slots.give_back(slot, event)
        return event

    def arrived(self, parts: Sequence[tuple[Piece, int]], event: Event | None) -> None:
        """Note that bytes of tensors are there once `event` has passed."""
        with self._changed:
            for piece, count in parts:
                piece.missing -= count
                if event is not None:
                    piece.events.append(event)
            self._changed.notify_all()


class WindowTarget:
    """One window being filled."""

    def __init__(
        self,
        assembly: Assembly,
        number: int,
        first_chunk: int,
        chunk_size: int,
        pieces: Sequence[Piece],
    ) -> None:
        self._assembly = assembly
        self._number = number
        self._first_chunk = first_chunk
        self._chunk_size = chunk_size
        self._pieces = pieces
        self._ends = [piece.end for piece in pieces]

    def room(self, offset: int, length: int) -> Room:
        """Return the tensor's own memory, or a slot."""
        pieces = self._within(offset, offset + length)
        self._assembly.admit(self._number, pieces, offset)
        chunk = self._first_chunk + offset // self._chunk_size
        own = _own_memory(pieces, offset, length)
        if own is not None:
            parts = [(pieces[0], length)]
            return self._assembly.receive(chunk, own, lambda: self._assembly.arrived(parts, None))
        slot = self._assembly.take_slot()
        return self._assembly.receive(
            chunk, slot.view[:length], lambda: self._copy(slot, pieces, offset, offset + length)
        )

    def write(self, view: memoryview, offset: int) -> None:
        """Never asked for: every chunk has a room."""
        raise NotImplementedError

    def read(self, view: memoryview, offset: int) -> None:
        """Never asked for: no chunk is recorded."""
        raise NotImplementedError

    def commit(self) -> None:
        """Do nothing: tensors are handed out one by one."""

    def close(self) -> None:
        """Do nothing."""

    def _within(self, begin: int, end: int) -> list[Piece]:
        found = []
        for at in range(bisect_right(self._ends, begin), len(self._pieces)):
            if self._pieces[at].begin >= end:
                break
            found.append(self._pieces[at])
        return found

    def _copy(self, slot: Slot, pieces: Sequence[Piece], begin: int, end: int) -> None:
        copies = []
        for piece in pieces:
            start, stop = max(begin, piece.begin), min(end, piece.end)
            copies.append((piece, start - begin, start - piece.begin, stop - start))
        event = self._assembly.copy(slot, copies)
        self._assembly.arrived([(piece, length) for piece, _, _, length in copies], event)


def _own_memory(pieces: Sequence[Piece], offset: int, length: int) -> memoryview | None:
    """Return where the host writes a chunk that lies in one tensor; None where it cannot."""
    memory = pieces[0].memory if len(pieces) == 1 else None
    if memory is None or memory.view is None:
        return None
    begin = offset - pieces[0].begin
    if begin < 0 or pieces[0].end < offset + length:
        return None
    return memory.view[begin : begin + length]


class _Room:
    """Memory for a chunk. That it is closed says nothing of its bytes: a failed one is too."""

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def close(self) -> None:
        """Let go of the view."""
        self.view.release()
