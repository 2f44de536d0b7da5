"""The store behind the cache: the readers of `backends`, each chunk checked, in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.backends import Entry, Reader
from glowplug_snapshotter.cache.content import Content
from glowplug_snapshotter.cache.slots import Slots
from glowplug_snapshotter.checksum import crc32c
from glowplug_snapshotter.errors import SnapshotError, TransientError
from glowplug_snapshotter.manifest import MANIFEST_LIMIT
from glowplug_snapshotter.plan import blob_key, manifest_key
from glowplug_snapshotter.retry import with_retries

ATTEMPTS = 4


class Upstream:
    """Reads one store; raises SnapshotError. `count` hears of the bytes read."""

    def __init__(self, reader: Reader, slots: Slots, count: Callable[[int], None]) -> None:
        self.streams = reader.streams
        self._reader = reader
        self._slots = slots
        self._count = count
        self._stop = threading.Event()

    def describe(self, content: Content) -> str:
        """Return where the content lies, for people."""
        return self._reader.describe(blob_key(content.blake3))

    async def manifest(self, digest: str) -> bytes:
        """Return a manifest's bytes, checked against its digest."""

        def read() -> bytes:
            data = self._reader.fetch(manifest_key(digest), MANIFEST_LIMIT)
            if manifests.digest_of(data) != digest:
                where = self._reader.describe(manifest_key(digest))
                raise TransientError(f"{where} does not have its digest.", "DigestMismatch")
            return data

        data = await self._slots.run(with_retries, read, self._stop, attempts=ATTEMPTS)
        self._count(len(data))
        return data

    async def read_into(self, content: Content, chunk: int, view: memoryview) -> None:
        """Fill `view` with a chunk whose crc32c is right."""
        entry = Entry(blob_key(content.blake3), content.size)

        def read() -> None:
            self._reader.read_into(entry, chunk * content.chunk_size, view)
            self._count(len(view))
            if crc32c(view) != content.crc32c[chunk]:
                raise TransientError(
                    f"Chunk {chunk} of {self._reader.describe(entry.path)} does not match its "
                    "checksum: the stored bytes are damaged; take the snapshot again.",
                    "ChecksumMismatch",
                )

        await self._slots.run(with_retries, read, self._stop, attempts=ATTEMPTS)

    def close(self) -> None:
        """Let no request be tried again."""
        self._stop.set()


def unavailable(error: Exception) -> SnapshotError:
    """Say an unexpected error as one that a reader's other sources may cure."""
    if isinstance(error, SnapshotError):
        return error
    return SnapshotError("Internal", f"This is a bug in Glowplug: {error!r}.")
