"""A store read through the node's cache, and by itself where the cache does not help.

The cache speaks the store's own layout over plain HTTP. It is asked first, and never needed: gone,
slow to answer or wrong, it costs a moment and the store gives the bytes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import quote, urlsplit

from glowplug_snapshotter.backends import Entry, Reader, Ticket
from glowplug_snapshotter.backends.http import HttpReader
from glowplug_snapshotter.errors import SnapshotError

REACHED_IN = 1.0  # s; a Service without an endpoint on this node drops packets, it does not refuse
LEFT_ALONE = 5.0  # s after a failure


class CacheReader(HttpReader):
    """The node's cache. `digest` lets it know a blob's snapshot, should it have forgotten."""

    def __init__(self, url: str, digest: str) -> None:
        super().__init__(url)
        self._hint = digest.removeprefix("blake3:")

    def url_for(self, path: str) -> str:
        """Return the address, with the snapshot's digest."""
        return f"{self._base}/{quote(path)}?manifest={self._hint}"


class CachedReader:
    """The objects of one snapshot. `open_store` is called when the store is needed."""

    streams = 4

    def __init__(self, url: str, digest: str, open_store: Callable[[], Reader]) -> None:
        self._url = url
        self._cache = CacheReader(url, digest)
        self._open_store = open_store
        self._store: Reader | None = None
        self._lock = threading.Lock()
        self._answered: set[tuple[str, int]] = set()
        self._reached = False
        self._alone_until = 0.0

    def describe(self, path: str) -> str:
        """Return the object's name in the store once that is open, in the cache before."""
        return (self._store or self._cache).describe(path)

    def entries(self) -> list[Entry]:
        """Return what the store lists."""
        return self._opened().entries()

    def revision(self) -> str | None:
        """Return None: a store has no revisions."""
        return None

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small object whole."""
        if self._may_ask((path, -1)):
            try:
                return self._cache.fetch(path, limit)
            except SnapshotError:
                self._leave()
        return self._opened().fetch(path, limit)

    def read_into(
        self, entry: Entry, offset: int, view: memoryview, ticket: Ticket | None = None
    ) -> None:
        """Fill `view` from the cache, or from the store where the cache's answer was no good."""
        spot = (entry.path, offset)
        if self._may_ask(spot):
            try:
                self._cache.read_into(entry, offset, view, ticket)
                with self._lock:
                    self._answered.add(spot)
                return
            except SnapshotError as error:
                # A content forged on its way to the cache: what was read of it must not be kept.
                if error.reason == "SourceChanged" or (ticket is not None and ticket.given_up):
                    raise
                self._leave()
        self._opened().read_into(entry, offset, view, ticket)

    def close(self) -> None:
        """Let go of connections."""
        self._cache.close()
        if self._store is not None:
            self._store.close()

    def _may_ask(self, spot: tuple[str, int]) -> bool:
        """Whether to try the cache; who asks for a spot again had a wrong answer from it."""
        with self._lock:
            if spot in self._answered or time.monotonic() < self._alone_until:
                return False
            if not self._reached:
                self._reached = self._can_be_reached()
                if not self._reached:
                    self._alone_until = time.monotonic() + LEFT_ALONE
            return self._reached

    def _can_be_reached(self) -> bool:
        parts = urlsplit(self._url)
        try:
            address = (parts.hostname or "", parts.port or 80)
            socket.create_connection(address, timeout=REACHED_IN).close()
        except OSError:
            return False
        return True

    def _leave(self) -> None:
        with self._lock:
            self._reached = False
            self._alone_until = time.monotonic() + LEFT_ALONE

    def _opened(self) -> Reader:
        with self._lock:
            if self._store is None:
                self._store = self._open_store()
            return self._store
