"""Moves a plan's bytes: a few threads share a few chunks of memory, which are reused for ever.

The first touch of memory, not the network, is the usual wall, and the memory used is that of
a few chunks whatever the model's size. Many slow connections share a chunk, each a range of it.
A chunk counts only when its checksum is right; a file is named only when all of its chunks are.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from glowplug_snapshotter.checksum import crc32c
from glowplug_snapshotter.chunks import (
    Buffers,
    Chunk,
    OpenFile,
    Part,
    Place,
    count_of,
    places,
    ranges,
)
from glowplug_snapshotter.destinations import Destination, Room
from glowplug_snapshotter.errors import SnapshotError, TransientError
from glowplug_snapshotter.fetch import Fetch, Usual
from glowplug_snapshotter.pace import Pace
from glowplug_snapshotter.plan import Item, Plan
from glowplug_snapshotter.retry import with_retries
from glowplug_snapshotter.schedule import Schedule

TICK = 0.25  # s between reports of progress, and looks for stragglers
FEWEST_SLOTS, MOST_SLOTS = 4, 8  # chunks in memory, two per core within these
STREAMS_PER_CORE = 8
SPARE_SECONDS = 4  # second requests allowed whatever the number of ranges, plus one in ten
ENDING = 10.0  # s that threads get to leave after a cancel


@dataclass(slots=True)
class Tally:
    """What happened, for the result. Seconds are summed over threads but for `first_byte_at`."""

    first_byte_at: float | None = None  # time.monotonic()
    verify: float = 0.0
    write: float = 0.0
    resumed: int = 0  # bytes
    ranges: int = 0
    retried: int = 0
    doubled: int = 0
    concurrency: int = 0


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def chunks_in_memory() -> int:
    """Return the size of a ring here."""
    return min(MOST_SLOTS, max(FEWEST_SLOTS, 2 * cores()))


class Ring:
    """One copying of a plan into a prepared destination."""

    def __init__(
        self, plan: Plan, destination: Destination, on_file: Callable[[str], None]
    ) -> None:
        longest = max((item.entry.size for item in plan.items), default=0)
        self._plan = plan
        self._destination = destination
        self._on_file = on_file
        self.slots = chunks_in_memory()
        self._buffers = Buffers(destination, min(plan.chunk_size, longest))
        self._pace = Pace(plan.reader.streams, STREAMS_PER_CORE * cores(), time.monotonic())
        self._usual = Usual()
        self._schedule = Schedule(places(plan), self.slots, lambda: self._pace.limit)
        self._stop = threading.Event()
        self._finished = threading.Event()
        self._lock = threading.Lock()
        self._files: dict[str, OpenFile] = {}
        self._chunks: set[Chunk] = set()
        self._fetches: set[Fetch] = set()
        self._second_free = threading.Semaphore()  # one second request at a time: it has a buffer
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._error: SnapshotError | None = None
        self.tally = Tally()
        self.done = 0

    def run(self, on_progress: Callable[[int], None]) -> None:
        """Copy everything; raises the first SnapshotError met. `cancel` ends what is left then."""
        self._hire()
        while not self._finished.wait(TICK) and not self._stop.is_set():
            on_progress(self.done)
            self._ask_again_where_late()
        self._leave()
        if self._error is not None:
            raise self._error
        self.tally.concurrency = self._pace.limit
        on_progress(self.done)

    def cancel(self) -> None:
        """Let no further file get its name; returns when the threads have ended."""
        self._end(None)
        self._leave()

    def _hire(self) -> None:
        """Have as many threads as the pace asks for."""
        with self._lock:
            while len(self._threads) < self._pace.limit and not self._schedule.is_over:
                number = len(self._threads)
                thread = threading.Thread(target=self._worker, args=(number,), daemon=True)
                self._threads.append(thread)
                self._running += 1
                thread.start()

    def _leave(self) -> None:
        deadline = time.monotonic() + ENDING
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._lock:
            if self._running == 0:  # else a thread still writes there; the process ends soon
                for chunk in self._chunks:
                    chunk.close()
                self._chunks.clear()
            for file in self._files.values():
                file.target.close()
            self._files.clear()

    def _end(self, error: SnapshotError | None) -> None:
        with self._lock:
            if self._error is None and not self._stop.is_set():
                self._error = error
            self._stop.set()
            under_way = list(self._fetches)
        self._schedule.stop()
        for fetch in under_way:
            fetch.cancel()

    def _worker(self, number: int) -> None:
        try:
            while (work := self._schedule.take(number)) is not None:
                part = self._open(work) if isinstance(work, Place) else work
                if part is not None:
                    self._carry(part)
        except SnapshotError as error:
            self._end(error)
        except Exception as error:
            self._end(SnapshotError("Internal", f"The restore failed: {error!r}."))
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self._finished.set()

    def _open(self, place: Place) -> Part | None:
        """Give a chunk memory and cut it into ranges; None when it is there already."""
        file = self._file(place.item)
        if place.length == 0 or self._is_here(place, file):
            self._schedule.opened(())
            self._schedule.freed()
            self._arrived(place, file)
            return None
        own = file.target.room(place.offset, place.length)
        chunk = Chunk(place, file, own or self._buffers.take(), own=own is not None)
        together = -(-self._pace.limit // self.slots)
        parts = [Part(chunk, at, length) for at, length in ranges(place.length, together)]
        chunk.left = len(parts)
        with self._lock:
            self._chunks.add(chunk)
        self._schedule.opened(parts[1:])
        return parts[0]

    def _file(self, item: Item) -> OpenFile:
        with self._lock:
            if self._stop.is_set():
                raise SnapshotError("Cancelled", "The restore was cancelled.")
            file = self._files.get(item.path)
            if file is None:
                chunks = count_of(item, self._plan.chunk_size)
                file = OpenFile(self._destination.open(item), chunks)
                self._files[item.path] = file
            return file

    def _is_here(self, place: Place, file: OpenFile) -> bool:
        """Check the bytes of a chunk that an earlier run recorded."""
        recorded = self._destination.recorded(place.number)
        if recorded is None or place.expected not in (None, recorded):
            return False
        buffer = self._buffers.take()
        view = buffer.view[: place.length]
        try:
            file.target.read(view, place.offset)
            found = crc32c(view) == recorded
        except SnapshotError:
            found = False
        finally:
            view.release()
            buffer.close()
        if found:
            with self._lock:
                self.tally.resumed += place.length
        return found

    def _carry(self, part: Part) -> None:
        """Read one range; the last one of its chunk also proves and writes the chunk."""
        chunk = part.chunk
        self._fetch_patiently(chunk, part.offset, part.length)
        with self._lock:
            chunk.left -= 1
            last = chunk.left == 0
        if last:
            self._finish(chunk)

    def _fetch_patiently(self, chunk: Chunk, offset: int, length: int) -> None:
        with_retries(
            lambda: self._fetch(chunk, offset, length), self._stop, on_error=self._on_failure
        )

    def _on_failure(self, error: TransientError) -> None:
        with self._lock:
            self.tally.retried += 1
            if error.throttled:
                self._pace.slow_down(time.monotonic())

    def _fetch(self, chunk: Chunk, offset: int, length: int) -> None:
        view = chunk.view[offset : offset + length]
        entry = chunk.place.item.entry
        fetch = Fetch(self._plan.reader, entry, chunk.place.offset + offset, view)
        with self._lock:
            if self._stop.is_set():
                raise SnapshotError("Cancelled", "The restore was cancelled.")
            self._fetches.add(fetch)
        try:
            fetch.run()
        finally:
            with self._lock:
                self._fetches.discard(fetch)
        self._came(fetch, length)

    def _came(self, fetch: Fetch, length: int) -> None:
        now = time.monotonic()
        self._usual.add(now - fetch.started, length)
        with self._lock:
            self.tally.ranges += 1
            if self.tally.first_byte_at is None:
                self.tally.first_byte_at = fetch.answered_at or now
            before = self._pace.limit
            self._pace.done(length, now)
            changed = self._pace.limit != before
        if changed:
            self._hire()
            self._schedule.wake()

    def _ask_again_where_late(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = [f for f in self._fetches if self._usual.is_late(now - f.started, len(f.view))]
            allowed = self.tally.doubled < SPARE_SECONDS + self.tally.ranges // 10
        for fetch in sorted(late, key=lambda f: f.started) if allowed else ():
            if not self._second_free.acquire(blocking=False):
                return
            buffer = self._buffers.take()

            def give_back(buffer: Room = buffer) -> None:
                buffer.close()
                self._second_free.release()

            if fetch.double(buffer.view, give_back):
                self.tally.doubled += 1
                return
            give_back()

    def _finish(self, chunk: Chunk) -> None:
        """Prove a chunk that is whole in memory, and put it where it belongs."""
        place = chunk.place
        crc = self._prove(chunk)
        started = time.monotonic()
        if not chunk.own:
            chunk.file.target.write(chunk.view, place.offset)
        self._destination.record(place.number, crc)  # before others may use the memory
        file = chunk.file
        with self._lock:
            self._chunks.discard(chunk)
            self.tally.write += time.monotonic() - started
        chunk.close()
        self._schedule.freed()
        self._arrived(place, file)

    def _prove(self, chunk: Chunk) -> int:
        """Return the chunk's crc32c; one that is wrong is read again as a whole."""
        expected = chunk.place.expected
        found = self._checksum(chunk)
        if expected in (None, found):
            return found

        def again() -> int:
            self._fetch(chunk, 0, chunk.place.length)
            found = self._checksum(chunk)
            if found != expected:
                raise self._damaged(chunk.place)
            return found

        self._on_failure(self._damaged(chunk.place))
        return with_retries(again, self._stop, on_error=self._on_failure)

    def _checksum(self, chunk: Chunk) -> int:
        started = time.monotonic()
        found = crc32c(chunk.view)
        with self._lock:
            self.tally.verify += time.monotonic() - started
        return found

    def _damaged(self, place: Place) -> TransientError:
        where = self._plan.reader.describe(place.item.entry.path)
        return TransientError(
            f"Chunk {place.index} of {place.item.path} ({where}) does not match its checksum: "
            "the stored bytes are damaged; take the snapshot again.",
            reason="ChecksumMismatch",
        )

    def _arrived(self, place: Place, file: OpenFile) -> None:
        with self._lock:
            self.done += place.length
            file.left -= 1
            if file.left or self._stop.is_set():
                return
        file.target.commit()
        with self._lock:
            self._files.pop(place.item.path, None)
        file.target.close()
        self._on_file(place.item.path)
