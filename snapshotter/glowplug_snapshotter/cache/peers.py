"""The other nodes' daemons: which there are, what they have, and whom not to ask for a while."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from glowplug_snapshotter.cache.auth import Key
from glowplug_snapshotter.cache.content import Content
from glowplug_snapshotter.cache.wire import PeerError, Wire
from glowplug_snapshotter.manifest import MANIFEST_LIMIT

log = logging.getLogger(__name__)

BUSY_S = 0.3  # a peer with all its connections taken is left alone for this long
LOST_S = 5.0  # one that does not answer, or too slowly
LIED_S = 600.0  # one that sent bytes which are not what they were asked to be
POLL_TIMEOUT = 1.0  # s
LATE_POLLS = 4  # in a row, after which a peer is left alone
REPORT_LIMIT = 1 << 20  # bytes
NEWS_S = 5.0  # a node that said it starts on a content is believed for this long


@dataclass(frozen=True, slots=True)
class Report:
    """What a peer has of a content, and which chunks it loads from the store right now."""

    chunks: frozenset[int] = frozenset()
    coming: frozenset[int] = frozenset()


class Peers:
    """Asks peers, with signed requests; `me` is the own address, as the others see it.

    Without a key there are none. `clock` is monotonic, `wall` in seconds since the epoch.
    """

    def __init__(
        self,
        me: str,
        key: Key | None,
        addresses: Callable[[], Collection[str]],
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.me = me
        self.lies = 0
        self._key = key
        self._addresses = addresses
        self._clock = clock
        self._wall = wall
        self._wire = Wire()
        self._shunned: dict[str, float] = {}
        self._busy: dict[str, float] = {}
        self._late: dict[str, int] = {}  # polls in a row that a peer did not answer in time
        self._news: dict[tuple[str, str], float] = {}  # (content, address) -> when it was said

    def known(self) -> tuple[str, ...]:
        """Everyone but this node who is not shunned."""
        if self._key is None:
            return ()
        return tuple(sorted(a for a in self._addresses() if a != self.me and self.counts(a)))

    def counts(self, address: str) -> bool:
        """Whether this peer is not shunned."""
        return self._clock() >= self._shunned.get(address, 0.0)

    def may_ask(self, address: str) -> bool:
        """Whether this peer may be asked for bytes now: not shunned, and not busy."""
        return self.counts(address) and self._clock() >= self._busy.get(address, 0.0)

    @property
    def shunned(self) -> int:
        """How many are not asked for a while."""
        return sum(not self.counts(address) for address in self._shunned)

    def close(self) -> None:
        """Close connections."""
        self._wire.close()

    async def poll(self, content: Content, before: Mapping[str, Report]) -> dict[str, Report]:
        """Ask everyone who has some of a content or brings it; who does neither is left out.

        The question itself tells them that this node brings it. Who is late with an answer is
        believed to be as `before`, a few times.
        """
        peers = self.known()
        path = f"/have/{content.blake3}?from={self.me}"
        chunks = len(content.crc32c)
        answers = await asyncio.gather(
            *(self._have(peer, path, chunks, before.get(peer)) for peer in peers)
        )
        return {p: a for p, a in zip(peers, answers, strict=True) if a is not None}

    async def read_into(self, address: str, content: Content, chunk: int, view: memoryview) -> None:
        """Get a chunk; raises PeerError, and shuns who deserves it."""
        target = self._signed(f"/blobs/{content.blake3}")
        try:
            await self._wire.read_into(address, target, chunk * content.chunk_size, view)
        except PeerError as error:
            self._blame(address, error)
            raise

    async def manifest(self, digest: str) -> bytes | None:
        """Return a manifest that some peer has; not checked yet."""
        for peer in self.known():
            try:
                hex_ = digest.removeprefix("blake3:")
                target = self._signed(f"/manifests/{hex_}/manifest.json")
                return await self._wire.get(peer, target, MANIFEST_LIMIT)
            except PeerError as error:
                self._blame(peer, error)
        return None

    def hear(self, blob: str, address: str) -> None:
        """Note that a peer brings a content."""
        now = self._clock()
        if address in self._addresses():
            self._news = {key: at for key, at in self._news.items() if now - at < NEWS_S}
            self._news[blob, address] = now

    def heard(self, blob: str) -> set[str]:
        """Who said lately that they bring a content."""
        now = self._clock()
        told = (a for (name, a), at in self._news.items() if name == blob and now - at < NEWS_S)
        return {address for address in told if self.counts(address)}

    def accuse(self, address: str, what: str) -> None:
        """Shun a peer that sent wrong bytes."""
        self.lies += 1
        log.warning("peer %s sent wrong bytes of %s: not asked for %d s", address, what, LIED_S)
        self._shun(address, LIED_S)

    def tire(self, address: str) -> None:
        """Shun a peer that is too slow, for a moment."""
        self._shun(address, LOST_S)

    async def _have(
        self, peer: str, path: str, chunks: int, before: Report | None
    ) -> Report | None:
        try:
            async with asyncio.timeout(POLL_TIMEOUT):
                body = json.loads(await self._wire.get(peer, self._signed(path), REPORT_LIMIT))
            self._late.pop(peer, None)
            if not body["here"]:
                return None
            bits = int(body["chunks"], 16)
            have = (n for n in range(chunks) if bits >> n & 1)
            return Report(frozenset(have), frozenset(map(int, body["coming"])))
        except TimeoutError:
            self._late[peer] = self._late.get(peer, 0) + 1
            if self._late[peer] < LATE_POLLS:
                return before
            self._shun(peer, LOST_S)
        except PeerError as error:
            self._blame(peer, error)
        except (ValueError, KeyError, TypeError):
            self._shun(peer, LOST_S)
        return None

    def _signed(self, target: str) -> str:
        if self._key is None:
            raise PeerError("there is no key for peers")
        return self._key.sign("GET", target, self._wall())

    def _blame(self, address: str, error: PeerError) -> None:
        if error.status == 503:
            self._busy[address] = self._clock() + BUSY_S
        elif error.status != 404:
            self._shun(address, LOST_S)

    def _shun(self, address: str, seconds: float) -> None:
        until = self._clock() + seconds
        self._shunned[address] = max(until, self._shunned.get(address, 0.0))
