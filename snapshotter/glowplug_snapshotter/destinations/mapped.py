"""Files in tmpfs that are received into directly, in huge pages even where the mount has none.

The first touch of memory is the wall of a restore into tmpfs: a write allocates and copies 4 KiB at
a time. Here a chunk's range is mapped, one byte of every 2 MiB written, and MADV_COLLAPSE (Linux
6.1) asked to make huge pages of them whatever the mount says; the network then fills them with no
second copy, and the engine maps them with 512 times fewer faults. Where the kernel will not, a
chunk is written as usual; so is the rest of a file once that proved cheaper, as in virtual machines
whose host takes back free huge pages and lends them anew at each touch.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time

from glowplug_snapshotter.destinations.files import PlainFile, Room

HUGE = 2 << 20  # bytes
MADV_COLLAPSE = 25
DEAR = 0.35e-9  # s of CPU per byte; allocating small pages and copying into them costs this
PROT_NONE = 0
MAP_NORESERVE = 0x4000
MAP_FIXED = 0x10
FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class MappedFile(PlainFile):
    """A tmpfs file whose chunks are received into its own huge pages, where that is cheap."""

    _is_cheap = False
    _is_known = False  # one chunk finds it out, while others are written

    def room(self, offset: int, length: int) -> Room | None:
        """Return the chunk's own memory, or None when it is not to be had in huge pages.

        Only whole pages that exist are handed out: touching one that cannot be allocated would
        kill the process where a write only fails.
        """
        whole = length // HUGE * HUGE
        if offset % HUGE or not whole or (self._is_known and not self._is_cheap):
            return None
        self._is_known = True
        before = time.thread_time()
        self._allocate(offset, length, whole)
        room = _map(self.fd, offset, length, whole)
        self._is_cheap = room is not None and time.thread_time() - before < DEAR * length
        return room

    def _allocate(self, offset: int, length: int, whole: int) -> None:
        for at in range(offset, offset + whole, HUGE):
            os.pwrite(self.fd, b"\0", at)
        if length > whole:
            os.posix_fallocate(self.fd, offset + whole, length - whole)


def _map(fd: int, offset: int, length: int, whole: int) -> Room | None:
    """Map a range at an address that suits huge pages; its first `whole` bytes become huge."""
    reserved = length + HUGE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    start = _libc.mmap(None, reserved, PROT_NONE, flags, -1, 0)
    if start == FAILED:
        return None
    address = -(-start // HUGE) * HUGE
    access = mmap.PROT_READ | mmap.PROT_WRITE
    fixed = mmap.MAP_SHARED | MAP_FIXED
    mapped = _libc.mmap(address, length, access, fixed, fd, offset) != FAILED
    if not mapped or _libc.madvise(address, whole, MADV_COLLAPSE) != 0:
        _libc.munmap(start, reserved)
        return None
    return _Mapping(start, reserved, address, length)


class _Mapping:
    """A mapped range; `view` must not be touched after `close`."""

    def __init__(self, start: int, reserved: int, address: int, length: int) -> None:
        self._start = start
        self._reserved = reserved
        memory = (ctypes.c_char * length).from_address(address)
        self.view = memoryview(memory).cast("B")

    def close(self) -> None:
        """Unmap; the bytes stay in the file."""
        self.view.release()
        _libc.munmap(self._start, self._reserved)
