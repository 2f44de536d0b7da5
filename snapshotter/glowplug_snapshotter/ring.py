"""Moves a plan's bytes: a few threads, each with one buffer that it reuses for every chunk.

The first touch of memory, not the network, is the usual wall, so no buffer is allocated per chunk,
and the memory used is `streams` chunks whatever the model's size. A chunk is written only when its
checksum is right; a file is named only when all of its chunks are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

from crc32c import crc32c

from glowplug_snapshotter.destination import Destination
from glowplug_snapshotter.errors import SnapshotError, TransientError
from glowplug_snapshotter.plan import Item, Plan
from glowplug_snapshotter.retry import with_retries

PROGRESS_EVERY = 0.25  # s


class Ring:
    """One copying of a plan into a destination."""

    def __init__(
        self, plan: Plan, destination: Destination, on_file: Callable[[str], None]
    ) -> None:
        self._plan = plan
        self._destination = destination
        self._on_file = on_file
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._finished = threading.Event()
        self._work = self._chunks()
        self._open: dict[str, _OpenFile] = {}
        self._error: SnapshotError | None = None
        self._running = 0
        self.done = 0

    def run(self, on_progress: Callable[[int], None]) -> None:
        """Copy everything; raises the first SnapshotError met, with nothing torn left."""
        chunks = sum(max(1, -(-i.entry.size // self._plan.chunk_size)) for i in self._plan.items)
        self._running = min(self._plan.reader.streams, chunks)
        for _ in range(self._running):
            threading.Thread(target=self._worker, daemon=True).start()
        while not self._finished.wait(PROGRESS_EVERY):
            on_progress(self.done)
        if self._error is not None:
            raise self._error
        on_progress(self.done)

    def cancel(self) -> None:
        """Let no further file get its name; the threads end with their current request."""
        with self._lock:
            self._stop.set()

    def _chunks(self) -> Iterator[tuple[Item, int, int]]:
        size = self._plan.chunk_size
        for item in self._plan.items:
            for offset in range(0, max(1, item.entry.size), size):
                yield item, offset, min(size, item.entry.size - offset)

    def _worker(self) -> None:
        longest = max((item.entry.size for item in self._plan.items), default=0)
        buffer = memoryview(bytearray(min(self._plan.chunk_size, longest)))
        try:
            while True:
                with self._lock:
                    work = None if self._stop.is_set() else next(self._work, None)
                if work is None:
                    return
                self._copy(*work, buffer)
        except SnapshotError as error:
            self._fail(error)
        except Exception as error:
            self._fail(SnapshotError("Internal", f"The restore failed: {error!r}."))
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._close()
                    self._finished.set()

    def _fail(self, error: SnapshotError) -> None:
        with self._lock:
            if self._error is None and not self._stop.is_set():
                self._error = error
            self._stop.set()
            self._finished.set()

    def _close(self) -> None:
        for file in self._open.values():
            os.close(file.fd)
        self._open.clear()

    def _copy(self, item: Item, offset: int, length: int, buffer: memoryview) -> None:
        view = buffer[:length]
        if length:
            with_retries(lambda: self._read(item, offset, view), self._stop)
        file = self._file(item)
        if length:
            self._destination.write(file.fd, view, offset)
        with self._lock:
            self.done += length
            file.left -= 1
            last = file.left == 0
        if last:
            self._complete(item, file)

    def _read(self, item: Item, offset: int, view: memoryview) -> None:
        self._plan.reader.read_into(item.entry, offset, view)
        if item.crc32c is None:
            return
        number = offset // self._plan.chunk_size
        if crc32c(view) != item.crc32c[number]:
            where = self._plan.reader.describe(item.entry.path)
            raise TransientError(
                f"Chunk {number} of {item.path} ({where}) does not match its checksum: "
                "the stored bytes are damaged; take the snapshot again.",
                reason="ChecksumMismatch",
            )

    def _file(self, item: Item) -> _OpenFile:
        with self._lock:
            if self._stop.is_set():
                raise SnapshotError("Cancelled", "The restore was cancelled.")
            file = self._open.get(item.path)
            if file is None:
                chunks = max(1, -(-item.entry.size // self._plan.chunk_size))
                fd = self._destination.create(item.path, item.entry.size)
                file = self._open[item.path] = _OpenFile(fd, chunks)
            return file

    def _complete(self, item: Item, file: _OpenFile) -> None:
        try:
            if item.entry.sha256 is not None:
                self._destination.check_sha256(item.path, file.fd, item.entry.sha256)
        finally:
            with self._lock:
                os.close(self._open.pop(item.path).fd)
        with self._lock:
            if self._stop.is_set():
                return
            self._destination.commit(item.path)
        self._on_file(item.path)


class _OpenFile:
    """A file under its temporary name, and how many of its chunks are missing."""

    __slots__ = ("fd", "left")

    def __init__(self, fd: int, left: int) -> None:
        self.fd = fd
        self.left = left
