"""Brings one content to this node: chunks from peers and from the store, each proved, until all is.

As many downloads as there are share a few buffers, each the room of one chunk on its way. Peers
are asked over and over what they have. A fetch that lags behind the others is started a second
time from elsewhere, and the first to end wins.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from glowplug_snapshotter.cache import proof
from glowplug_snapshotter.cache.blob import Blob
from glowplug_snapshotter.cache.choice import STORE, WINDOW, Choice, Sight, choose, orders_of
from glowplug_snapshotter.cache.disk import Disk
from glowplug_snapshotter.cache.peers import Peers, Report
from glowplug_snapshotter.cache.slots import Room, Slots
from glowplug_snapshotter.cache.upstream import Upstream, unavailable
from glowplug_snapshotter.cache.wire import PeerError
from glowplug_snapshotter.checksum import crc32c
from glowplug_snapshotter.errors import SnapshotError

log = logging.getLogger(__name__)

TICK = 0.1  # s between looks when nothing happens
POLL = 0.1, 0.5  # s between polls of the peers, at least and at most; else half a chunk's time
PATIENCE = 5.0  # s without progress after which another way is tried, or five times a chunk's
UNKNOWN = 4.0  # s that a chunk is thought to take before the first one came
URGENT = 8.0  # s that a reader waits before its chunk comes before all others
AHEAD = 4 * WINDOW  # missing chunks looked at
LONGEST = 30.0  # s after which a peer's chunk is given up, or ten times the usual time
PER_PEER = 2  # fetches from one peer at a time
TAINTED_S = 60.0  # a content that a peer forged is refused to everyone for this long


@dataclass(frozen=True, slots=True)
class Means:
    """What all downloads use. `count` hears of bytes that came from a peer."""

    disk: Disk
    upstream: Upstream
    peers: Peers
    slots: Slots
    count: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Fetch:
    chunk: int
    source: str
    started: float


class Download:
    """One content on its way: `run` it once; the rest tells of it meanwhile."""

    def __init__(self, blob: Blob, means: Means) -> None:
        self.blob = blob
        self._content = blob.content
        self._means = means
        self._reports: dict[str, Report] = {}
        self._nodes: frozenset[str] = frozenset()
        self._orders: list[tuple[str, ...]] = []
        self._fetches: dict[asyncio.Task[None], _Fetch] = {}
        self._left_since: dict[int, float] = {}
        self._suspects: dict[int, str] = {}  # chunks to have from the store, and who sent them
        self._usual = 0.0  # s that a chunk takes
        self._error: SnapshotError | None = None
        self._wake = asyncio.Event()
        blob.on_wanted = self._wake.set

    @property
    def coming(self) -> frozenset[int]:
        """Chunks that this node loads from the store right now."""
        return frozenset(f.chunk for f in self._fetches.values() if f.source == STORE)

    async def run(self) -> None:
        """Bring it; raises SnapshotError when the store does not give it, or gives it wrong."""
        watching: asyncio.Task[None] | None = None
        try:
            await proof.recover(self.blob, self._means.slots)
            await self._look_around()
            watching = asyncio.create_task(self._watch())
            while not await self._bring():
                self._doubt()
        finally:
            tasks = [*self._fetches, *([watching] if watching else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _bring(self) -> bool:
        """Fetch what is missing; say whether the whole has the right blake3."""
        hashing = asyncio.create_task(proof.hash_as_it_comes(self.blob, self._means.slots))
        hashing.add_done_callback(lambda _: self._wake.set())
        try:
            while not hashing.done():
                if self._error is not None:
                    raise self._error
                self._give_up_slow_peers()
                self._start_fetches()
                try:
                    async with asyncio.timeout(TICK):
                        await self._wake.wait()
                except TimeoutError:
                    continue
                self._wake.clear()
            return hashing.result() == self._content.blake3
        finally:
            hashing.cancel()

    def _doubt(self) -> None:
        """The whole is wrong though each crc32c is right: what peers sent comes from the store."""
        forged = {c: s for c, s in self.blob.sources.items() if s != STORE}
        where = self._means.upstream.describe(self._content)
        if not forged:
            raise SnapshotError(
                "ChecksumMismatch",
                f"{where} is damaged (its blake3 does not match its name): "
                "delete the blob and take the snapshot again.",
            )
        log.warning("a peer forged %s: its chunks come again, from the store", where)
        self._suspects |= forged
        self.blob.unmark(list(forged))
        self.blob.refuse(f"{where} was forged on its way to this cache: restore again.")
        asyncio.get_running_loop().call_later(TAINTED_S, self.blob.accept)

    async def _watch(self) -> None:
        while True:
            pause = min(max(POLL[0], self._usual / 2), POLL[1]) + 0.01 * len(self._reports)
            await asyncio.sleep(pause)
            await self._look_around()
            self._wake.set()

    async def _look_around(self) -> None:
        """Learn who else brings this content or has it, and so which chunk is whose."""
        peers, before, now = self._means.peers, self._reports, time.monotonic()
        self._reports = await peers.poll(self._content, before)
        self._share_out()
        nothing = Report()
        for chunk in self._left_since:  # a home that gets on is waited for
            home = self._orders[chunk][0]
            report = self._reports.get(home, nothing)
            if len(report.chunks) > len(before.get(home, nothing).chunks):
                self._left_since[chunk] = now

    def _share_out(self) -> None:
        """Give each chunk its home among those who bring the content, newcomers at once."""
        peers, name = self._means.peers, self._content.blake3
        nodes = frozenset({peers.me, *self._reports, *peers.heard(name)})
        if nodes != self._nodes:
            self._nodes = nodes
            self._orders = orders_of(name, len(self._content.crc32c), nodes)

    def _start_fetches(self) -> None:
        self._share_out()
        while self._means.slots.free:
            choice = choose(self._sight()) or self._second()
            if choice is None:
                return
            fetch = _Fetch(choice.chunk, choice.source, time.monotonic())
            task = asyncio.create_task(self._fetch(fetch, self._means.slots.take_now()))
            self._fetches[task] = fetch
            task.add_done_callback(self._ended)

    def _give_up_slow_peers(self) -> None:
        """A peer that trickles holds a slot: leave it for a while."""
        late = time.monotonic() - max(LONGEST, 10 * self._usual)
        for task, fetch in list(self._fetches.items()):
            if fetch.source != STORE and fetch.started < late:
                self._means.peers.tire(fetch.source)
                task.cancel()

    def _sight(self) -> Sight:
        now = time.monotonic()
        missing = self._unfetched()
        wanted = {chunk // WINDOW for chunk in self.blob.wanted}
        near = {c: None for c in missing if c // WINDOW in wanted}
        near |= dict.fromkeys(missing[:AHEAD])
        for chunk in near:
            self._left_since.setdefault(chunk, now)
        coming: set[int] = set()
        for peer, report in self._reports.items():
            coming |= report.coming
            if self._means.peers.counts(peer):
                coming |= report.chunks
        return Sight(
            me=self._means.peers.me,
            missing=near,
            order=self._order,
            holders={p: r.chunks - self._suspects.keys() for p, r in self._askable()},
            coming=coming - self._suspects.keys(),
            overdue=lambda chunk: (now - self._left_since[chunk]) / self._patience,
            first=wanted,
            urgent={c for c, since in self.blob.wanted.items() if now - min(since) > URGENT},
            store=self._busy(STORE) < self._means.upstream.streams,
        )

    def _unfetched(self) -> list[int]:
        under_way = {fetch.chunk for fetch in self._fetches.values()}
        return [chunk for chunk in self.blob.missing if chunk not in under_way]

    def _order(self, chunk: int) -> tuple[str, ...]:
        return (self._means.peers.me,) if chunk in self._suspects else self._orders[chunk]

    def _askable(self) -> list[tuple[str, Report]]:
        peers = self._means.peers
        return [
            (peer, report)
            for peer, report in self._reports.items()
            if peers.may_ask(peer) and self._busy(peer) < PER_PEER
        ]

    def _busy(self, source: str) -> int:
        return sum(fetch.source == source for fetch in self._fetches.values())

    @property
    def _patience(self) -> float:
        return max(PATIENCE, 5 * (self._usual or UNKNOWN))

    def _second(self) -> Choice | None:
        """With nothing else to do: what takes too long once more, from another peer or the store.

        What the store itself is slow with is asked of it only once.
        """
        if self._unfetched():
            return None
        now = time.monotonic()
        sources: dict[int, list[str]] = {}
        for fetch in self._fetches.values():
            sources.setdefault(fetch.chunk, []).append(fetch.source)
        for fetch in sorted(self._fetches.values(), key=lambda f: f.started):
            asked, waits = sources[fetch.chunk], (now - fetch.started) / self._patience
            if waits < 1 or len(asked) > 1:
                continue
            others = [p for p, r in self._askable() if fetch.chunk in r.chunks and p not in asked]
            if others and fetch.chunk not in self._suspects:
                return Choice(fetch.chunk, others[0])
            if waits > 2 and STORE not in asked:
                return Choice(fetch.chunk, STORE)
        return None

    async def _fetch(self, fetch: _Fetch, room: Room) -> None:
        chunk, source, means = fetch.chunk, fetch.source, self._means
        with room:
            view = room.view(self._content.length(chunk))
            if source == STORE:
                await means.upstream.read_into(self._content, chunk, view)
            elif not await self._ask(source, chunk, view):
                return
            if self.blob.has(chunk):
                return
            if chunk in self._suspects:
                await self._convict(chunk, view)
            offset = chunk * self._content.chunk_size
            await means.slots.run(means.disk.write, self.blob.fd, view, offset)
        if not self.blob.has(chunk):
            self.blob.mark(chunk, source)
            took = time.monotonic() - fetch.started
            self._usual = 0.8 * self._usual + 0.2 * took if self._usual else took

    async def _ask(self, peer: str, chunk: int, view: memoryview) -> bool:
        """Get a chunk from a peer; false when it did not give it, or not the right one."""
        means = self._means
        try:
            await means.peers.read_into(peer, self._content, chunk, view)
        except PeerError:
            return False
        means.count(len(view))
        if await means.slots.run(crc32c, view) != self._content.crc32c[chunk]:
            means.peers.accuse(peer, self._content.blake3)
            return False
        return True

    async def _convict(self, chunk: int, view: memoryview) -> None:
        """Compare what the store says with what a peer had sent."""
        peer, means = self._suspects[chunk], self._means
        if peer != proof.EARLIER and await means.slots.run(
            proof.differs, self.blob.fd, self._content, chunk, view
        ):
            means.peers.accuse(peer, self._content.blake3)

    def _ended(self, task: asyncio.Task[None]) -> None:
        fetch = self._fetches.pop(task)
        self._wake.set()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception) and not self.blob.has(fetch.chunk):
            self._error = self._error or unavailable(error)
            return
        if self.blob.has(fetch.chunk):
            for other, same in list(self._fetches.items()):
                if same.chunk == fetch.chunk and same.source != STORE:
                    other.cancel()
