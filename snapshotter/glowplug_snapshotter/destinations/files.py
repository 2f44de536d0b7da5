"""Files on disk and in tmpfs as targets: plain writes, O_DIRECT where the file system allows."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

BLOCK = 4096  # bytes; what O_DIRECT wants offsets, lengths and memory aligned to
WORTH_CARE = 4 << 20  # bytes of a file; smaller ones gain nothing from how they are written


class Room(Protocol):
    """As in the package's protocol; here to keep this module free of the plan."""

    view: memoryview

    def close(self) -> None:
        """Give the memory back."""


class PlainFile:
    """A file written through the page cache, which for tmpfs is the file. Raises OSError.

    `finish` gives the file its final name; with `durable` its bytes are on disk by then.
    """

    flags = 0

    def __init__(self, path: Path, size: int, finish: Callable[[], None], *, durable: bool) -> None:
        self._path = path
        self._size = size
        self._finish = finish
        self._durable = durable
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | self.flags
        try:
            self.fd = os.open(path, flags, 0o644)
        except OSError as error:
            if not self.flags or error.errno != errno.EINVAL:
                raise
            self.fd = os.open(path, flags & ~self.flags, 0o644)
        try:
            os.ftruncate(self.fd, size)
        except OSError:
            os.close(self.fd)
            raise

    def room(self, offset: int, length: int) -> Room | None:
        """Return None: the bytes are written."""
        return None

    def write(self, view: memoryview, offset: int) -> None:
        """Write all of `view`."""
        done = 0
        while done < len(view):
            done += os.pwrite(self.fd, view[done:], offset + done)

    def read(self, view: memoryview, offset: int) -> None:
        """Fill `view`; raises OSError when the file is shorter."""
        with open(self._path, "rb", buffering=0) as file:
            done = 0
            while done < len(view):
                count = os.preadv(file.fileno(), [view[done:]], offset + done)
                if count == 0:
                    raise OSError(errno.ENODATA, f"{self._path} is shorter than it was")
                done += count

    def commit(self) -> None:
        """Make the file what it should be, and name it."""
        os.ftruncate(self.fd, self._size)
        if self._durable:
            os.fdatasync(self.fd)
        self._finish()

    def close(self) -> None:
        """Close the descriptor."""
        with contextlib.suppress(OSError):
            os.close(self.fd)


class DirectFile(PlainFile):
    """A file written past the page cache, from page-aligned memory.

    What is over whole blocks at its end is written through the page cache, as is everything where
    the file system refuses.
    """

    flags = os.O_DIRECT

    def write(self, view: memoryview, offset: int) -> None:
        """Write all of `view`."""
        length = len(view)
        try:
            if length % BLOCK:
                self._write_tail(view, offset)
            else:
                super().write(view, offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._is_direct():
                raise
            fcntl.fcntl(self.fd, fcntl.F_SETFL, 0)
            super().write(view, offset)

    def _write_tail(self, view: memoryview, offset: int) -> None:
        whole = len(view) // BLOCK * BLOCK
        super().write(view[:whole], offset)
        with open(self._path, "r+b", buffering=0) as plain:
            done = whole
            while done < len(view):
                done += os.pwrite(plain.fileno(), view[done:], offset + done)

    def _is_direct(self) -> bool:
        return bool(fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_DIRECT)
