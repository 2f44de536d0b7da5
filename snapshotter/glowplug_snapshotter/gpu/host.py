"""The host as a device: tensors in ordinary memory, received into directly where they fill a chunk.

Large tensors ask for huge pages, which are touched in a fraction of the time.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap

from glowplug_snapshotter.gpu.device import ALIGNMENT, Event, Memory, Slot

HUGE = 2 << 20  # bytes
KDL_CPU = 1


class HostMemory:
    """Aligned memory of the process, freed when no view of it is left; in `pages` of its own."""

    def __init__(self, size: int, *, pages: bool = False) -> None:
        pages = pages or size >= 2 * HUGE
        memory = _pages(size) if pages else bytearray(size + ALIGNMENT)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        skip = -start % (HUGE if pages else ALIGNMENT)
        self.address = start + skip
        self.view: memoryview = memoryview(memory)[skip : skip + size]


def _pages(size: int) -> mmap.mmap:
    pages = mmap.mmap(-1, size + HUGE)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return pages


class Past:
    """An event of a device whose copies have ended when they return."""

    def wait(self) -> None:
        """Return at once."""


class Host:
    """Copies at once, in the calling thread."""

    dlpack = (KDL_CPU, 0)

    def allocate(self, size: int) -> Memory:
        """Return memory for `size` bytes."""
        return HostMemory(size)

    def slot(self, size: int) -> Slot:
        """Return pages that the ring reuses."""
        return HostMemory(size, pages=True)

    def copy(self, slot: Slot, start: int, memory: Memory, offset: int, length: int) -> None:
        """Copy."""
        if memory.view is not None:
            memory.view[offset : offset + length] = slot.view[start : start + length]

    def mark(self) -> Event:
        """Return an event that has passed."""
        return Past()

    def close(self) -> None:
        """Do nothing: no copy is under way."""
