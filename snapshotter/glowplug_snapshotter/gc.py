"""Frees a store of what nothing names any more, and forgets snapshots on request.

Live is what a manifest in the store names, and nothing else decides that: no object of a cluster is
asked. `forget` removes a manifest, `gc` later the content that no other names. How a collection and
a take at the same time keep out of each other's way is said in intents.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from glowplug_snapshotter import intents
from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.bucket import Bucket, Stored
from glowplug_snapshotter.compiled import format as compiled
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.events import Emit, Event
from glowplug_snapshotter.multipart import Begun, Uploads
from glowplug_snapshotter.plan import manifest_key

BATCH = 500  # blobs that one note condemns; S3 deletes up to 1,000 with one request
READERS = 8
MANIFEST = re.compile(r"manifests/([0-9a-f]{64})/manifest\.json")
OURS = re.compile(r"(blobs|uploads)/[0-9a-f]+|(sources|intents|condemned)/[0-9a-f]+\.json")


@dataclass(slots=True)
class Named:
    """What the manifests name, each read once however often the store is looked at."""

    bucket: Bucket
    live: set[str] = field(default_factory=set)  # blobs
    snapshots: set[str] = field(default_factory=set)  # hex digests
    caches: list[Stored] = field(default_factory=list)
    _read: dict[Stored, frozenset[str]] = field(default_factory=dict)

    def look(self) -> None:
        """Read what is new since the last look.

        Raises SnapshotError(InvalidManifest) for a manifest that cannot be read: nobody knows what
        it names, so nothing may be deleted.
        """
        found = self.bucket.list("manifests")
        self.caches = self.bucket.list("caches")
        self.snapshots = {match[1] for m in found if (match := MANIFEST.fullmatch(m.path))}
        there = [*found, *self.caches]
        self._read = {stored: self._read[stored] for stored in there if stored in self._read}
        for stored in there:
            if stored not in self._read and (blobs := self._blobs(stored)) is not None:
                self._read[stored] = blobs
        self.live = {blob for blobs in self._read.values() for blob in blobs}

    def _blobs(self, stored: Stored) -> frozenset[str] | None:
        data = self.bucket.get(stored.path)
        if data is None:
            return None  # forgotten just now
        where = self.bucket.describe(stored.path)
        if stored.path.startswith("caches/"):
            return frozenset({compiled.decode(data, where).pack.blake3})
        match = MANIFEST.fullmatch(stored.path)
        if match is None or manifests.digest_of(data) != f"blake3:{match[1]}":
            raise SnapshotError(
                "InvalidManifest",
                f"{where} is damaged or no manifest, so what it names is not known and nothing "
                "was deleted: forget it, or put it right.",
            )
        return frozenset(file.blake3 for file in manifests.decode(data, where).files)


@dataclass(frozen=True, slots=True)
class Garbage:
    """What nothing names and what is old enough; blobs come last, as others name them."""

    caches: list[Stored]
    records: list[Stored]
    uploads: list[Stored]
    notes: list[Stored]
    begun: list[Begun]
    blobs: list[Stored]


class Collection:
    """One run of `gc`. Ages are told by the store's clock; `clock` only bounds deleting."""

    def __init__(
        self,
        bucket: Bucket,
        uploads: Uploads | None,
        emit: Emit,
        older_than: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._uploads = uploads
        self._emit = emit
        self._older_than = older_than
        self._clock = clock
        self._named = Named(bucket)

    def run(self, *, delete: bool, now: float) -> Event:
        """Find the garbage, and delete it if told to; `now` in seconds since the epoch."""
        self._named.look()
        found = self._find(now)
        objects = [*found.caches, *found.records, *found.uploads, *found.notes]
        for stored in [*objects, *found.blobs]:
            self._emit({"event": "garbage", "name": stored.path, "bytes": stored.size})
        for begun in found.begun:
            self._emit({"event": "garbage", "name": begun.path, "upload": begun.id})
        blobs = found.blobs
        if delete:
            self._delete(objects)
            for begun in found.begun:
                if self._uploads is not None:
                    self._uploads.abort(begun)
            blobs = self._delete_blobs(found.blobs)
        return {
            "event": "result",
            "deleted": delete,
            "snapshots": len(self._named.snapshots),
            "blobs": len(blobs),
            "bytes": sum(blob.size for blob in blobs),
            "caches": len(found.caches),
            "records": len(found.records),
            "uploads": len(found.uploads) + len(found.begun),
        }

    def _find(self, now: float) -> Garbage:
        def old(folder: str, age: float) -> list[Stored]:
            return [
                stored
                for stored in self._bucket.list(folder)
                if now - stored.modified >= age and OURS.fullmatch(stored.path)
            ]

        grace = self._older_than
        live = self._named.live
        blobs = [s for s in old("blobs", grace) if s.path.removeprefix("blobs/") not in live]
        doomed = {s.path.removeprefix("blobs/") for s in blobs}
        begun: list[Begun] = []
        if self._uploads is not None:
            begun = [*self._uploads.begun("uploads/"), *self._uploads.begun("blobs/")]
        return Garbage(
            caches=[
                s
                for s in self._named.caches
                if s.path.split("/")[1] not in self._named.snapshots and now - s.modified >= grace
            ],
            records=self._useless(old("sources", grace), doomed),
            uploads=old("uploads", grace),
            notes=[
                s
                for folder in (intents.INTENTS, intents.CONDEMNED)
                for s in old(folder, max(grace, 2 * intents.LIFE))
            ],
            begun=[b for b in begun if now - b.touched >= grace],
            blobs=blobs,
        )

    def _useless(self, records: Sequence[Stored], doomed: set[str]) -> list[Stored]:
        """Return the source records whose content is, or will be, gone."""
        there = {s.path.removeprefix("blobs/") for s in self._bucket.list("blobs")} - doomed

        def useless(record: Stored) -> bool:
            try:
                return json.loads(self._bucket.get(record.path) or b"{}")["blake3"] not in there
            except (ValueError, KeyError, TypeError):
                return True

        with ThreadPoolExecutor(READERS) as pool:
            return [r for r, gone in zip(records, pool.map(useless, records), strict=True) if gone]

    def _delete(self, objects: Sequence[Stored]) -> None:
        for batch in _batches(objects):
            self._bucket.delete([stored.path for stored in batch])

    def _delete_blobs(self, blobs: Sequence[Stored]) -> list[Stored]:
        deleted = []
        for batch in _batches(blobs):
            names = {stored.path.removeprefix("blobs/"): stored for stored in batch}
            begun = self._clock()
            note = intents.write_note(self._bucket, intents.CONDEMNED, names)
            wanted = intents.named_by_notes(self._bucket, intents.INTENTS, note.modified)
            self._named.look()  # after the intents: one that is gone has become a manifest
            doomed = [s for name, s in names.items() if name not in wanted | self._named.live]
            if self._clock() - begun < intents.PROMPT:
                self._bucket.delete([stored.path for stored in doomed])
                deleted += doomed
            self._bucket.delete([note.path])  # should a request before fail, the note stays
        return deleted


def _batches(objects: Iterable[Stored]) -> Iterator[list[Stored]]:
    left = iter(objects)
    while batch := list(islice(left, BATCH)):
        yield batch


def forget(bucket: Bucket, digest: str) -> Event:
    """Remove a snapshot's manifest and those of its compile caches; raises SnapshotError(NotFound).

    Its content stays until `gc`. A replica that restores it right now goes on.
    """
    hexes = digest.removeprefix("blake3:")
    if not re.fullmatch(r"[0-9a-f]{64}", hexes):
        raise SnapshotError("InvalidURL", f"{digest!r} is not a digest: blake3:<64 hex digits>.")
    path = manifest_key(digest)
    if bucket.head(path) is None:
        raise SnapshotError("NotFound", f"{bucket.describe(path)} does not exist.")
    caches = [stored.path for stored in bucket.list(f"caches/{hexes}")]
    bucket.delete([path])
    bucket.delete(caches)
    return {"event": "result", "digest": f"blake3:{hexes}", "caches": len(caches)}
