"""The port for other nodes, the operator and Prometheus.

GET  /healthz, /metrics                    open: probes and scrapes cannot sign
GET  /have/<hex>?from=<address>            which chunks are here; tells that the asker brings it
GET  /blobs/<hex>, /manifests/...          what is here, nothing is fetched for it
POST /prefetch/<hex>                       bring a snapshot, its Pod is on its way
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable

from glowplug_snapshotter.cache.auth import Key
from glowplug_snapshotter.cache.http import Answer, Request, Slice
from glowplug_snapshotter.cache.library import Library
from glowplug_snapshotter.cache.metrics import Counters, Gauges, render
from glowplug_snapshotter.cache.peers import Peers
from glowplug_snapshotter.cache.serving import BLOB, MANIFEST, blob_answer, not_found, parts
from glowplug_snapshotter.cache.throttle import Bucket
from glowplug_snapshotter.errors import SnapshotError

HAVE = re.compile(r"/have/([0-9a-f]{64})")
PREFETCH = re.compile(r"/prefetch/([0-9a-f]{64})")
SLICE = 1 << 20  # bytes that pass the bandwidth's bound at a time


class Peering:
    """Answers peers: `most` transfers at a time, all of them within one bandwidth."""

    def __init__(
        self,
        library: Library,
        peers: Peers,
        key: Key | None,
        counters: Counters,
        gauges: Callable[[], Gauges],
        *,
        bucket: Bucket,
        most: int,
        wall: Callable[[], float],
    ) -> None:
        self._library = library
        self._peers = peers
        self._key = key
        self._counters = counters
        self._gauges = gauges
        self._bucket = bucket
        self._most = most
        self._wall = wall
        self._transfers = 0

    async def answer(self, request: Request) -> Answer:
        """Answer one request; raises SnapshotError."""
        if request.path == "/healthz":
            return Answer(200, b"ok\n")
        if request.path == "/metrics":
            self._counters.lies = self._peers.lies
            text = render(self._counters, self._gauges())
            return Answer(200, text.encode(), {"Content-Type": "text/plain; version=0.0.4"})
        if self._key is None or not self._key.admits(request.method, request.target, self._wall()):
            self._counters.refused += 1
            return Answer(403, b"The signature is missing, wrong or too old.\n")
        if request.method == "POST":
            found = PREFETCH.fullmatch(request.path)
            return await self._prefetch(f"blake3:{found[1]}") if found else not_found()
        if found := HAVE.fullmatch(request.path):
            return self._have(found[1], request.query("from") or "")
        if found := MANIFEST.fullmatch(request.path):
            data = self._library.kept_manifest(f"blake3:{found[1]}")
            return not_found() if data is None else Answer(200, data)
        if found := BLOB.fullmatch(request.path):
            return await self._blob(request, found[1])
        return not_found()

    async def _prefetch(self, digest: str) -> Answer:
        here, total = await self._library.prefetch(digest, pin=True)
        return _json({"here": here, "total": total})

    def _have(self, name: str, asker: str) -> Answer:
        if asker:
            self._peers.hear(name, asker)
        report = self._library.report(name)
        if report is None:
            return _json({"here": False})
        chunks, coming = report
        bits = sum(1 << chunk for chunk in chunks)
        return _json({"here": True, "chunks": f"{bits:x}", "coming": sorted(coming)})

    async def _blob(self, request: Request, name: str) -> Answer:
        content = self._library.content(name)
        if content is None:
            return not_found()
        answer = blob_answer(request, content)
        if isinstance(answer, Answer):
            return answer
        if self._transfers >= self._most:
            self._counters.busy += 1
            return Answer(503, b"All transfers are taken.\n", {"Retry-After": "1"})
        first, end, status, headers = answer
        chunks = [chunk for chunk, _, _ in parts(content, first, end)]
        pieces = self._pieces(name, chunks, first, end)
        return Answer(status, headers=headers, pieces=pieces, length=end - first)

    async def _pieces(
        self, name: str, chunks: list[int], first: int, end: int
    ) -> AsyncGenerator[Slice | memoryview]:
        """Send chunks whose crc32c is right; the asker proves the rest itself."""
        self._transfers += 1
        try:
            async with self._library.borrow(name) as blob:
                if blob is None or not all(map(blob.has, chunks)):
                    raise SnapshotError("NotFound", f"{name} is not here.")
                for offset in range(first, end, SLICE):
                    count = min(SLICE, end - offset)
                    await self._bucket.take(count)
                    self._counters.to_peers_bytes += count
                    yield Slice(blob.fd, offset, count)
        finally:
            self._transfers -= 1


def _json(body: dict[str, object]) -> Answer:
    return Answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
