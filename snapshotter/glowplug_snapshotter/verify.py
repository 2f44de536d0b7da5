"""Reads a stored snapshot back and proves it, blob by blob."""

from __future__ import annotations

import threading
from functools import partial

from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.checksum import blake3, crc32c
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.events import Emit, Event
from glowplug_snapshotter.plan import blob_key, open_manifest
from glowplug_snapshotter.retry import with_retries


def verify(url: str, digest: str | None, endpoint: str | None, emit: Emit) -> Event:
    """Check every size, crc32c and blake3; raise SnapshotError(ChecksumMismatch) at the first."""
    reader, manifest, digest = open_manifest(url, digest, endpoint)
    never = threading.Event()
    buffer = memoryview(bytearray(manifest.chunk_size))
    done = 0
    for file in manifest.files:
        entry = Entry(blob_key(file.blake3), file.size)
        whole = blake3()
        for number, expected in enumerate(file.crc32c):
            offset = number * manifest.chunk_size
            view = buffer[: min(manifest.chunk_size, file.size - offset)]
            with_retries(partial(reader.read_into, entry, offset, view), never)
            whole.update(view)
            done += len(view)
            if crc32c(view) != expected:
                raise _damaged(reader.describe(entry.path), f"chunk {number} of {file.path}")
        if whole.hexdigest() != file.blake3:
            raise _damaged(reader.describe(entry.path), file.path)
        emit({"event": "file", "name": file.path})
        emit({"event": "progress", "done": done, "total": manifest.size})
    return {"event": "result", "digest": digest, "bytes": done, "files": len(manifest.files)}


def _damaged(where: str, what: str) -> SnapshotError:
    return SnapshotError(
        "ChecksumMismatch",
        f"{where} is damaged ({what} does not match its checksum): "
        "delete the blob and take the snapshot again.",
    )
