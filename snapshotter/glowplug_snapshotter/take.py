"""Takes a snapshot: reads a source once, in bounded memory, and writes what the store lacks.

The manifest is written last. A source that changes in the middle leaves no manifest.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.backends import Entry, Reader, Ticket
from glowplug_snapshotter.checksum import blake3, crc32c
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.events import Emit, Event
from glowplug_snapshotter.manifest import CHUNK_SIZE, File, Manifest
from glowplug_snapshotter.multipart import UploadGoneError, part_size
from glowplug_snapshotter.retry import with_retries
from glowplug_snapshotter.sources import open_source
from glowplug_snapshotter.store import Store, open_store
from glowplug_snapshotter.tensors import HeaderReader

READ_AHEAD = 2  # chunks


class Take:
    """One run of `take`."""

    def __init__(self, source: str, reader: Reader, store: Store, emit: Emit) -> None:
        self._source = source
        self._reader = reader
        self._store = store
        self._emit = emit
        self._stop = threading.Event()
        self._done = 0
        self._total = 0
        self._uploaded = 0

    def run(self, clock: Callable[[], float] = time.time) -> Event:
        """Store every file, then the manifest; return the result event."""
        started = clock()
        entries = with_retries(self._reader.entries, self._stop)
        if not entries:
            raise SnapshotError("NotFound", f"{self._source} holds no files: check the prefix.")
        self._total = sum(entry.size for entry in entries)
        self._progress(0)
        files = tuple(self._file(entry) for entry in entries)
        if with_retries(self._reader.entries, self._stop) != entries:
            raise _changed(self._source)
        body = Manifest(self._source, self._reader.revision(), files)
        data = manifests.encode(body)
        digest = manifests.digest_of(data)
        blobs = {file.blake3: file.size for file in files}
        url = self._store.commit(
            digest, data, blobs, lambda lost: self._again(lost, entries, files)
        )
        return {
            "event": "result",
            "digest": digest,
            "bytes": body.size,
            "uploaded": self._uploaded,
            "files": len(files),
            "manifest": url,
            "seconds": round(clock() - started, 4),
        }

    def _file(self, entry: Entry) -> File:
        try:
            manifests.safe_path(entry.path)
        except ValueError as error:
            raise SnapshotError("Unsupported", f"{self._source}: {error}.") from None
        file = self._store.recall(self._source, entry)
        if file is not None:
            self._progress(entry.size)
        else:
            file = self._read_whole(entry)
        self._emit({"event": "file", "name": entry.path, "blake3": file.blake3, "bytes": file.size})
        return file

    def _read_whole(self, entry: Entry) -> File:
        if entry.size <= CHUNK_SIZE:
            return self._small(entry)
        try:
            return self._large(entry)
        except UploadGoneError:  # another take of the same file was faster
            return self._store.recall(self._source, entry) or self._large(entry)

    def _small(self, entry: Entry) -> File:
        scan = Scan(entry, self._reader.describe(entry.path))
        with closing(self._chunks(entry, scan)) as chunks:
            data = b"".join(chunks)
        file = scan.file()
        if not self._store.has_blob(file.blake3, file.size):
            self._store.put_blob(file.blake3, data)
            self._uploaded += file.size
        self._store.remember(self._source, entry, file)
        return file

    def _large(self, entry: Entry) -> File:
        scan = Scan(entry, self._reader.describe(entry.path))
        with closing(self._chunks(entry, scan)) as chunks:
            parts = _joined(chunks, part_size(entry.size) // CHUNK_SIZE)
            file, sent = self._store.send(self._source, entry, parts, scan.file)
        self._uploaded += sent
        return file

    def _again(self, lost: set[str], entries: Sequence[Entry], files: Sequence[File]) -> None:
        """Bring blobs back that were collected as garbage while others were read."""
        for entry, file in zip(entries, files, strict=True):
            if file.blake3 in lost and self._file(entry) != file:
                raise _changed(self._source)

    def _chunks(self, entry: Entry, scan: Scan) -> Generator[bytearray, None, None]:
        """Yield the file's chunks in order, each hashed, reading a little ahead."""
        reads = _Reads(self._reader, entry)
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            ahead: deque[Future[bytearray]] = deque()
            offsets = iter(range(0, entry.size, CHUNK_SIZE))
            try:
                while True:
                    while len(ahead) < READ_AHEAD and (offset := next(offsets, None)) is not None:
                        ahead.append(pool.submit(reads.chunk, offset))
                    if not ahead:
                        return
                    chunk = ahead.popleft().result()
                    scan.feed(chunk)
                    self._progress(len(chunk))
                    yield chunk
            finally:
                reads.give_up()

    def _progress(self, count: int) -> None:
        self._done += count
        self._emit({"event": "progress", "done": self._done, "total": self._total})


class _Reads:
    """Reads of one file's chunks, from several threads, that end soon when nobody wants them."""

    def __init__(self, reader: Reader, entry: Entry) -> None:
        self._reader = reader
        self._entry = entry
        self._stop = threading.Event()
        self._tickets: set[Ticket] = set()

    def chunk(self, offset: int) -> bytearray:
        """Return the chunk at `offset`."""
        chunk = bytearray(min(CHUNK_SIZE, self._entry.size - offset))
        view, ticket = memoryview(chunk), Ticket()
        self._tickets.add(ticket)
        with_retries(lambda: self._reader.read_into(self._entry, offset, view, ticket), self._stop)
        self._tickets.discard(ticket)
        view.release()
        return chunk

    def give_up(self) -> None:
        """End the reads under way."""
        self._stop.set()
        for ticket in list(self._tickets):
            ticket.give_up()


class Scan:
    """What is learned of a file as its chunks go by: hashes, checksums, tensors."""

    def __init__(self, entry: Entry, where: str) -> None:
        self._entry = entry
        self._where = where
        self._hash = blake3()
        self._sha256 = hashlib.sha256() if entry.sha256 else None
        self._crcs: list[int] = []
        weights = entry.path.endswith(".safetensors")
        self._header = HeaderReader(entry.size) if weights else None

    def feed(self, chunk: bytearray) -> None:
        """Take the next chunk; raises SnapshotError when the header is not safetensors."""
        self._hash.update(chunk)
        self._crcs.append(crc32c(chunk))
        if self._sha256 is not None:
            self._sha256.update(chunk)
        if self._header is not None:
            try:
                self._header.feed(chunk)
            except ValueError as error:
                raise self._damaged(error) from None

    def file(self) -> File:
        """Return the whole file's entry; raises SnapshotError when the source's word is broken."""
        if self._sha256 is not None and self._sha256.hexdigest() != self._entry.sha256:
            raise SnapshotError(
                "ChecksumMismatch", f"{self._where} does not have the sha256 its source states."
            )
        try:
            tensors = self._header.tensors() if self._header is not None else ()
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._damaged(error) from None
        digest = self._hash.hexdigest()
        return File(self._entry.path, self._entry.size, digest, tuple(self._crcs), tensors)

    def _damaged(self, error: Exception) -> SnapshotError:
        return SnapshotError(
            "InvalidSource", f"{self._where} is not a valid safetensors file: {error}."
        )


def _joined(chunks: Iterator[bytearray], count: int) -> Iterator[bytes | bytearray]:
    """Put each `count` chunks together."""
    if count == 1:
        yield from chunks
        return
    while part := b"".join(islice(chunks, count)):
        yield part


def _changed(source: str) -> SnapshotError:
    return SnapshotError(
        "SourceChanged",
        f"{source} was changed while it was read: nothing was committed; "
        "take the snapshot again when the upload is finished.",
    )


def take(
    source: str, source_endpoint: str | None, to: str, endpoint: str | None, emit: Emit
) -> Event:
    """Snapshot `source` into the store `to`; return the result event or raise SnapshotError."""
    reader = open_source(source, source_endpoint)
    return Take(source, reader, open_store(to, endpoint, os.environ), emit).run()
