"""One content on this node: which of its chunks are proved, where they came from, who waits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from glowplug_snapshotter.cache.content import Content
from glowplug_snapshotter.errors import SnapshotError


class Blob:
    """A content that is here or on its way; used by one event loop.

    `wanted`: since when (monotonic) each reader waits for a chunk.

    A chunk may be read once its crc32c is right, the last one once the blake3 of all is: crc32c
    does not stop forgery, and peers send chunks. `fd` is open until `close`.
    """

    def __init__(self, content: Content, fd: int, *, proved: bool) -> None:
        self.content = content
        self.fd = fd
        self.proved = proved or not content.crc32c
        self.wanted: dict[int, list[float]] = {}
        self.on_wanted: Callable[[], None] = lambda: None
        self._error: SnapshotError | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self.sources: dict[int, str] = {}
        if proved:
            self.sources = dict.fromkeys(range(len(content.crc32c)), "")

    def has(self, chunk: int) -> bool:
        """Whether a chunk is here and has the right crc32c."""
        return chunk in self.sources

    def serves(self, chunk: int) -> bool:
        """Whether a chunk may be read by Pods."""
        return self.proved or (chunk in self.sources and chunk != self.content.last)

    @property
    def missing(self) -> list[int]:
        """The chunks that are not here."""
        return [chunk for chunk in range(len(self.content.crc32c)) if chunk not in self.sources]

    async def ready(self, chunk: int) -> None:
        """Wait until a chunk may be read; raises SnapshotError when it will not come."""
        if self.serves(chunk) and self._error is None:
            return
        since = time.monotonic()
        self.wanted.setdefault(chunk, []).append(since)
        self.on_wanted()
        try:
            while True:
                if self._error is not None:
                    raise self._error
                if self.serves(chunk):
                    return
                await self._change()
        finally:
            self.wanted[chunk].remove(since)
            if not self.wanted[chunk]:
                del self.wanted[chunk]

    async def here(self, chunk: int) -> None:
        """Wait until a chunk is here, readable or not."""
        while not self.has(chunk):
            await self._change()

    async def nearly(self, left: int) -> None:
        """Wait until no more than `left` chunks are missing; raises SnapshotError."""
        while len(self.missing) > left:
            if self._error is not None:
                raise self._error
            await self._change()

    def mark(self, chunk: int, source: str) -> None:
        """A chunk is here."""
        self.sources[chunk] = source
        self._tell()

    def unmark(self, chunks: list[int]) -> None:
        """These chunks are in doubt."""
        for chunk in chunks:
            self.sources.pop(chunk, None)

    def prove(self) -> None:
        """All of it has the right blake3."""
        self.proved = True
        for chunk in self.missing:  # of a content that was whole all along
            self.sources[chunk] = ""
        self._tell()

    def fail(self, error: SnapshotError) -> None:
        """Let all who wait, or ask later, hear why it does not come."""
        self._error = error
        self._tell()

    def refuse(self, why: str) -> None:
        """Some chunks were wrong: who may have read one must not end well."""
        self.fail(SnapshotError("SourceChanged", why))

    def accept(self) -> None:
        """End a refusal."""
        if self._error is not None and self._error.reason == "SourceChanged":
            self._error = None

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def _change(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _tell(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
