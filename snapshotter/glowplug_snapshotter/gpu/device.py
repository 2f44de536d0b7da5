"""What loading needs of a device: memory, slots to receive into, asynchronous copies, events."""

from __future__ import annotations

from typing import Protocol

ALIGNMENT = 256  # bytes; what DLPack asks of an address, and more than any dtype does


class Memory(Protocol):
    """One tensor's memory, aligned to ALIGNMENT; it is freed with the last reference to it.

    `view` is its bytes where the host can write them, otherwise None.
    """

    @property
    def address(self) -> int:
        """Where it begins, on the device."""

    @property
    def view(self) -> memoryview | None:
        """Its bytes."""


class Slot(Protocol):
    """Host memory that copies start from; pinned where the device gains by it."""

    @property
    def view(self) -> memoryview:
        """Its bytes."""


class Event(Protocol):
    """A point in the device's queue of copies."""

    def wait(self) -> None:
        """Return when every copy before it has ended; raises SnapshotError."""


class Device(Protocol):
    """A device as several threads use it. Every method raises SnapshotError."""

    dlpack: tuple[int, int]  # DLPack's device type and number

    def allocate(self, size: int) -> Memory:
        """Return memory for `size` bytes, which is at least one."""

    def slot(self, size: int) -> Slot:
        """Return a slot of at least `size` bytes."""

    def copy(self, slot: Slot, start: int, memory: Memory, offset: int, length: int) -> None:
        """Begin to copy `length` bytes from `start` of a slot to `offset` of the memory.

        Neither may be touched or freed before an event marked later has passed.
        """

    def mark(self) -> Event:
        """Return the event that passes when all copies begun so far have ended."""

    def close(self) -> None:
        """Wait for every copy and let go of slots; memory that was handed out stays."""
