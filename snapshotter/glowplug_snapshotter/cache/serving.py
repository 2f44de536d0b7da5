"""The port for Pods: the layout of a store, `manifests/<hex>/manifest.json` and `blobs/<hex>`.

Who knows a digest may read: it is 256 bits long, and told only with the model. A blob answers as
soon as the chunks asked for are proved, while the rest is still on its way.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator

from glowplug_snapshotter.cache.content import Content
from glowplug_snapshotter.cache.http import Answer, Request, Slice
from glowplug_snapshotter.cache.library import Library
from glowplug_snapshotter.cache.metrics import Counters
from glowplug_snapshotter.cache.ranges import asked_range, matches
from glowplug_snapshotter.cache.slots import Slots
from glowplug_snapshotter.cache.upstream import Upstream
from glowplug_snapshotter.errors import SnapshotError

MANIFEST = re.compile(r"/manifests/([0-9a-f]{64})/manifest\.json")
BLOB = re.compile(r"/blobs/([0-9a-f]{64})")
STATUS = {"NotFound": 404, "Forbidden": 502, "SourceChanged": 412, "Unsupported": 501}


class Serving:
    """Answers Pods."""

    def __init__(
        self, library: Library, upstream: Upstream, slots: Slots, counters: Counters
    ) -> None:
        self._library = library
        self._upstream = upstream
        self._slots = slots
        self._counters = counters

    async def answer(self, request: Request) -> Answer:
        """Answer one request; raises SnapshotError."""
        if request.method == "POST":
            return Answer(405, b"Only GET and HEAD.\n", {"Allow": "GET, HEAD"})
        if found := MANIFEST.fullmatch(request.path):
            return await self._manifest(f"blake3:{found[1]}")
        if found := BLOB.fullmatch(request.path):
            return await self._blob(request, found[1])
        return not_found()

    async def _manifest(self, digest: str) -> Answer:
        data = await self._library.manifest(digest)
        # Who reads a manifest wants the rest: bring it in order, ahead of the questions.
        await self._library.prefetch(digest, pin=False)
        self._counters.to_pods_bytes += len(data)
        return Answer(200, data, {"ETag": f'"{digest}"', "Content-Type": "application/json"})

    async def _blob(self, request: Request, name: str) -> Answer:
        hint = request.query("manifest")
        content = await self._library.find(name, f"blake3:{hint}" if hint else None)
        if content is None:
            return not_found()
        answer = blob_answer(request, content)
        if isinstance(answer, Answer):
            return answer
        first, end, status, headers = answer
        if request.method == "HEAD":
            return Answer(status, headers=headers, pieces=_nothing(), length=end - first)
        pieces = self._pieces(content, first, end)
        return Answer(status, headers=headers, pieces=pieces, length=end - first)

    async def _pieces(
        self, content: Content, first: int, end: int
    ) -> AsyncGenerator[Slice | memoryview]:
        async with self._library.lend(content) as blob:
            if blob is None:
                async for view in self._passed(content, first, end):
                    yield view
                return
            wanted = parts(content, first, end)
            if all(blob.serves(chunk) for chunk, _, _ in wanted):
                self._counters.hits += 1
            else:
                self._counters.misses += 1
            for chunk, begin, stop in wanted:
                await blob.ready(chunk)
                self._counters.to_pods_bytes += stop - begin
                yield Slice(blob.fd, begin, stop - begin)

    async def _passed(self, content: Content, first: int, end: int) -> AsyncGenerator[memoryview]:
        """Chunks of a content for which there is no room, straight from the store."""
        self._counters.misses += 1
        for chunk, begin, stop in parts(content, first, end):
            with await self._slots.take() as room:
                view = room.view(content.length(chunk))
                await self._upstream.read_into(content, chunk, view)
                start = chunk * content.chunk_size
                self._counters.passed_bytes += stop - begin
                yield memoryview(bytes(view[begin - start : stop - start]))


def parts(content: Content, first: int, end: int) -> list[tuple[int, int, int]]:
    """Cut a range at chunk borders: (chunk, first byte, end)."""
    size = content.chunk_size
    return [
        (chunk, max(first, chunk * size), min(end, (chunk + 1) * size))
        for chunk in range(first // size, -(-end // size))
    ]


def blob_answer(
    request: Request, content: Content
) -> Answer | tuple[int, int, int, dict[str, str]]:
    """Check the conditions; return (first, end, status, headers) of what is to be sent."""
    etag = f'"{content.blake3}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if not matches(request.headers.get("if-match"), etag):
        return Answer(412, b"The content has another ETag.\n", headers)
    asked = asked_range(request.headers.get("range"), content.size)
    if asked is None:
        return Answer(416, b"", headers | {"Content-Range": f"bytes */{content.size}"})
    first, end = asked
    if (first, end) == (0, content.size) and "range" not in request.headers:
        return first, end, 200, headers
    headers["Content-Range"] = f"bytes {first}-{end - 1}/{content.size}"
    return first, end, 206, headers


def explain(error: Exception) -> Answer:
    """Turn an error into an answer; anything unforeseen is a bug, and a server's error."""
    if isinstance(error, SnapshotError):
        return Answer(STATUS.get(error.reason, 503), f"{error}\n".encode())
    return Answer(500, f"This is a bug in Glowplug: {error!r}.\n".encode())


def not_found() -> Answer:
    """Say that there is nothing."""
    return Answer(404, b"Nothing of this name is known here.\n")


async def _nothing() -> AsyncGenerator[Slice | memoryview]:
    return
    yield
