"""Where bytes come from: one small protocol, one module for each way to reach them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """An object to read, pinned: `path` is relative to the reader's root.

    `validator` is the ETag (or what stands for one) that every read must meet; None for content
    that is proved by its own checksum. `sha256` is the source's own checksum where it has one.
    """

    path: str
    size: int
    validator: str | None = None
    sha256: str | None = None


class Reader(Protocol):
    """Reads objects below one root, from several threads at once."""

    streams: int  # concurrent requests that serve this back end well

    def describe(self, path: str) -> str:
        """Return the object's name for people: bucket and key, never a signature."""

    def entries(self) -> list[Entry]:
        """Return every object below the root, pinned, by path."""

    def revision(self) -> str | None:
        """Return the immutable revision behind the root, where the source has one."""

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small object whole; SnapshotError when it is longer than `limit` bytes."""

    def read_into(self, entry: Entry, offset: int, view: memoryview) -> None:
        """Fill `view` with the object's bytes from `offset` on.

        Raises TransientError when another try may help, otherwise SnapshotError:
        NotFound, Forbidden, SourceChanged.
        """
