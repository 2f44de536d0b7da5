"""Which chunks lie beside this journal: a restore that was killed goes on from there.

A chunk is recorded after its bytes were written, with their crc32c. A record is no proof: after a
machine's crash it may be ahead of the disk, so the next run checks the bytes themselves, which
costs a local read. Records are appended in one write each; a torn one ends the journal.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from glowplug_snapshotter.checksum import crc32c

RECORD = struct.Struct("<III")  # chunk, crc32c of its bytes, crc32c of the two
HEAD_LIMIT = 64 * 1024 * 1024  # bytes


@dataclass(slots=True)
class Journal:
    """An open journal. `files` are the paths of the restore it belongs to."""

    fd: int
    fingerprint: str
    files: tuple[str, ...]
    chunks: dict[int, int] = field(default_factory=dict)

    @classmethod
    def create(cls, path: Path, fingerprint: str, files: tuple[str, ...]) -> Journal:
        """Start an empty one; raises OSError."""
        fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        head = json.dumps({"fingerprint": fingerprint, "files": files}).encode() + b"\n"
        try:
            written = os.write(fd, head)
            if written < len(head):
                os.write(fd, head[written:])
        except OSError:
            os.close(fd)
            raise
        return cls(fd, fingerprint, files)

    @classmethod
    def load(cls, path: Path) -> Journal | None:
        """Open what an earlier run left; None when there is nothing readable."""
        try:
            data = path.read_bytes()
            head, newline, records = data.partition(b"\n")
            if not newline or len(head) > HEAD_LIMIT:
                return None
            fields = json.loads(head)
            fingerprint, files = str(fields["fingerprint"]), tuple(map(str, fields["files"]))
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        chunks, size = _records(records)
        os.ftruncate(fd, len(head) + 1 + size)
        return cls(fd, fingerprint, files, chunks)

    def record(self, chunk: int, crc: int) -> None:
        """Append one record; raises OSError."""
        known = struct.pack("<II", chunk, crc)
        os.write(self.fd, RECORD.pack(chunk, crc, crc32c(known)))

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _records(data: bytes) -> tuple[dict[int, int], int]:
    """Return the sound records up to the first that is not, and their length in bytes."""
    chunks: dict[int, int] = {}
    for at in range(0, len(data) - RECORD.size + 1, RECORD.size):
        chunk, crc, check = RECORD.unpack_from(data, at)
        if crc32c(data[at : at + 8]) != check:
            return chunks, at
        chunks[chunk] = crc
    return chunks, len(data) // RECORD.size * RECORD.size
