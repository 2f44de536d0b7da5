"""What this node keeps: each content once on the disk, and one download of it however many ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.cache import proof
from glowplug_snapshotter.cache.blob import Blob
from glowplug_snapshotter.cache.content import Content, parse
from glowplug_snapshotter.cache.disk import Disk, Found
from glowplug_snapshotter.cache.download import Download, Means
from glowplug_snapshotter.cache.metrics import Counters
from glowplug_snapshotter.cache.shelf import Place, Shelf
from glowplug_snapshotter.cache.upstream import unavailable
from glowplug_snapshotter.errors import SnapshotError

log = logging.getLogger(__name__)

PINNED_S = 600.0  # a snapshot that was asked for ahead of its Pod stays for this long
READING = 4  # manifests at a time, so that digests made up by somebody hold no more threads
NEARLY = 4  # missing chunks, those under way too, at which the next content begins


@dataclass(slots=True)
class _Open:
    """A content in use or on its way."""

    blob: Blob
    place: Place
    users: int = 0
    task: asyncio.Task[None] | None = None
    download: Download | None = None


class Library:
    """The contents of one directory; `clock` in seconds since the epoch."""

    def __init__(
        self, means: Means, shelf: Shelf, counters: Counters, clock: Callable[[], float]
    ) -> None:
        self._means = means
        self._disk: Disk = means.disk
        self._shelf = shelf
        self._counters = counters
        self._clock = clock
        self._snapshots: dict[str, tuple[str, ...]] = {}
        self._contents: dict[str, Content] = {}
        self._whole: set[str] = set()
        self._doubtful: set[str] = set()  # whole, but written before a crash
        self._open: dict[str, _Open] = {}
        self._reading: dict[str, asyncio.Task[bytes]] = {}
        self._walks: dict[str, asyncio.Task[None]] = {}

    @property
    def downloads(self) -> int:
        """How many contents are on their way."""
        return sum(one.download is not None for one in self._open.values())

    def restore(self, found: Found) -> None:
        """Take over what an earlier daemon left on the disk."""
        for digest in found.digests:
            data = self._disk.manifest(digest)
            try:
                self._learn(digest, parse(digest, data or b""))
            except SnapshotError as error:
                log.warning("dropped a manifest: %s", error)
                self._disk.drop_manifest(digest)
        for name, (size, used) in {**found.partial, **found.blobs}.items():
            content = self._contents.get(name)
            if content is None or content.size != size:
                self._disk.remove(name)
                continue
            self._shelf.put(name, size, used)
            if name in found.blobs:
                self._whole.add(name)
        self._doubtful = set(self._whole) if found.crashed else set()
        self._drop(self._shelf.trim(self._clock()))
        for digest in list(self._snapshots):
            self._forget_empty(digest)

    async def manifest(self, digest: str) -> bytes:
        """Return a manifest's bytes; raises SnapshotError."""
        data = self._disk.manifest(digest)
        if data is not None and digest in self._snapshots:
            return data
        task = self._reading.get(digest)
        if task is None and len(self._reading) >= READING:
            raise SnapshotError("Unavailable", "Too many manifests are being read: ask again.")
        if task is None:
            task = self._reading[digest] = asyncio.create_task(self._read_manifest(digest))
            task.add_done_callback(lambda _: self._reading.pop(digest))
        return await asyncio.shield(task)

    def kept_manifest(self, digest: str) -> bytes | None:
        """Return a manifest that is here."""
        return self._disk.manifest(digest)

    def content(self, name: str) -> Content | None:
        """Return what is known here of a content."""
        return self._contents.get(name)

    async def find(self, name: str, digest: str | None) -> Content | None:
        """Return what is known of a content; `digest` names a snapshot that has it."""
        if name not in self._contents and digest is not None:
            await self.manifest(digest)
        return self._contents.get(name)

    @contextlib.asynccontextmanager
    async def lend(self, content: Content) -> AsyncIterator[Blob | None]:
        """Lend a content, on its way if it must be; None when there is no room to keep it."""
        one = self._open.get(content.blake3)
        if one is None and self._make_room(content):
            one = self._begin(content)
        if one is None:
            yield None
            return
        self._hold(one)
        try:
            yield one.blob
        finally:
            self._let_go(one)

    @contextlib.asynccontextmanager
    async def borrow(self, name: str) -> AsyncIterator[Blob | None]:
        """Lend what is here or on its way to a peer; None for anything else."""
        if name not in self._open and (name not in self._whole or name in self._doubtful):
            yield None
            return
        async with self.lend(self._contents[name]) as blob:
            yield blob

    def report(self, name: str) -> tuple[Iterable[int], Iterable[int]] | None:
        """Say what a peer may get of a content: (chunks here, chunks that come from the store).

        None where it is not here and will not be. Of what this node will bring next there is
        nothing yet, but peers leave it its share.
        """
        content, one = self._contents.get(name), self._open.get(name)
        if content is None:
            return None
        if one is not None:
            return one.blob.sources, one.download.coming if one.download is not None else ()
        if name in self._whole and name not in self._doubtful:
            return range(len(content.crc32c)), ()
        soon = any(name in self._snapshots.get(digest, ()) for digest in self._walks)
        return ((), ()) if soon else None

    async def prefetch(self, digest: str, *, pin: bool) -> tuple[int, int]:
        """Begin to bring a whole snapshot; return (bytes that are here whole, bytes of all)."""
        await self.manifest(digest)
        wanted = {name: self._contents[name] for name in self._snapshots.get(digest, ())}
        until = self._clock() + (PINNED_S if pin else 0.0)
        here = [content for name, content in wanted.items() if name in self._whole]
        for content in here:
            self._shelf.pin(content.blake3, until)
        if len(here) < len(wanted) and digest not in self._walks:
            walk = asyncio.create_task(self._walk(list(wanted.values()), until))
            self._walks[digest] = walk
            walk.add_done_callback(lambda _: self._walks.pop(digest))
        return sum(c.size for c in here), sum(c.size for c in wanted.values())

    async def close(self) -> None:
        """End what is under way; what was brought of it is kept for the next daemon."""
        tasks = [*self._walks.values(), *self._reading.values()]
        tasks += [one.task for one in self._open.values() if one.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _walk(self, wanted: list[Content], until: float) -> None:
        for content in wanted:
            async with self.lend(content) as blob:
                if blob is None:
                    continue
                self._shelf.pin(content.blake3, until)
                with contextlib.suppress(SnapshotError):
                    await blob.nearly(NEARLY)

    async def _read_manifest(self, digest: str) -> bytes:
        data = await self._means.peers.manifest(digest)
        if data is None or manifests.digest_of(data) != digest:
            data = await self._means.upstream.manifest(digest)
        found = await self._means.slots.run(parse, digest, data)
        await self._means.slots.run(self._disk.keep_manifest, digest, data)
        self._learn(digest, found)
        return data

    def _learn(self, digest: str, found: list[Content]) -> None:
        for content in found:
            self._contents.setdefault(content.blake3, content)
        self._snapshots[digest] = tuple(content.blake3 for content in found)

    def _make_room(self, content: Content) -> bool:
        leaving = self._shelf.reserve(content.blake3, content.size, self._clock())
        self._drop(leaving or ())
        return leaving is not None

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._counters.evictions += 1
            self._disk.remove(name)
            self._whole.discard(name)
            self._doubtful.discard(name)
            for digest in [d for d, held in self._snapshots.items() if name in held]:
                self._forget_empty(digest)

    def _forget_empty(self, digest: str) -> None:
        """Drop the manifest of a snapshot of which nothing is left."""
        if any(name in self._shelf for name in self._snapshots[digest]):
            return
        self._disk.drop_manifest(digest)
        for name in self._snapshots.pop(digest):
            if not any(name in held for held in self._snapshots.values()):
                self._contents.pop(name, None)

    def _begin(self, content: Content) -> _Open:
        name = content.blake3
        place = self._shelf.place(name)
        fd = self._disk.open_blob(name, content.size) if name in self._whole else None
        if fd is not None:
            proved = name not in self._doubtful
            one = _Open(Blob(content, fd, proved=proved), place)
            work = None if proved else self._prove(one)
        else:
            self._whole.discard(name)
            fd = self._disk.open_partial(name, content.size)
            one = _Open(Blob(content, fd, proved=False), place)
            one.download = Download(one.blob, self._means)
            work = self._bring(one, one.download)
        self._open[name] = one
        if work is not None:
            self._hold(one)
            one.task = asyncio.create_task(work)
        return one

    async def _bring(self, one: _Open, download: Download) -> None:
        name = one.blob.content.blake3
        try:
            await download.run()
            one.blob.prove()
            await self._means.slots.run(self._disk.commit, name, one.blob.fd)
            self._whole.add(name)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._give_up(one, unavailable(error))
        finally:
            one.download = None
            self._let_go(one)

    async def _prove(self, one: _Open) -> None:
        """Check a content that was written before a crash."""
        content = one.blob.content
        try:
            actual = await self._means.slots.run(proof.hash_of, one.blob.fd, content)
            if actual != content.blake3:
                raise SnapshotError("ChecksumMismatch", f"{content.blake3} was torn by a crash.")
            self._doubtful.discard(content.blake3)
            one.blob.prove()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._whole.discard(content.blake3)
            self._give_up(one, unavailable(error))
        finally:
            self._let_go(one)

    def _give_up(self, one: _Open, error: SnapshotError) -> None:
        """Tell who waits; the next who asks begins anew, from the chunks that were right."""
        name = one.blob.content.blake3
        log.warning("%s could not be brought: %s", name, error)
        one.blob.fail(error)
        self._open.pop(name, None)
        if error.reason in ("ChecksumMismatch", "NoSpace"):
            self._disk.remove(name)
            self._doubtful.discard(name)
            self._shelf.remove(name)

    def _hold(self, one: _Open) -> None:
        one.users += 1
        self._shelf.use(one.place, self._clock())

    def _let_go(self, one: _Open) -> None:
        name = one.blob.content.blake3
        one.users -= 1
        self._shelf.done(one.place)
        if one.users:
            return
        one.blob.close()
        if self._open.get(name) is one:
            del self._open[name]
            self._disk.touch(name)
