"""Keeps whoever commits a manifest and whoever collects garbage from hurting each other.

No lock: each side first writes a note, and only then looks at what the other side has written.

    commit: write intents/<id> naming the blobs; read condemned/*; see that every blob is there;
            write the manifest; remove the intent.
    gc:     write condemned/<id> naming the garbage; read intents/*, then all manifests; delete
            what neither names; remove the note.

Whichever note comes second, its writer sees the first: gc spares what an intent names, and a commit
waits for a note that condemns a blob of its own to go, and then looks whether the blob did. So no
manifest ever appears whose blobs are gone or will go, whatever the blobs' age.

A note of a writer that was killed counts for LIFE by the store's clock; a writer acts on its own
for PROMPT only, by a clock that does not jump. The rest is room for requests under way.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Collection, Mapping

from glowplug_snapshotter.bucket import Bucket, Stored
from glowplug_snapshotter.errors import SnapshotError, TransientError
from glowplug_snapshotter.plan import blob_key

INTENTS = "intents"
CONDEMNED = "condemned"
LIFE = 3600.0  # s
PROMPT = 600.0  # s
PAUSE = 2.0  # s between looks at a note that stands in the way
ROUNDS = 5  # of bringing blobs that vanished


def write_note(bucket: Bucket, folder: str, blobs: Collection[str]) -> Stored:
    """Write a note naming blobs; return it as stored, which also tells the store's time."""
    path = f"{folder}/{uuid.uuid4().hex}.json"
    bucket.put(path, json.dumps({"blobs": sorted(blobs)}).encode())
    note = bucket.head(path)
    if note is None:
        raise TransientError(f"{bucket.describe(path)} was removed by somebody else.")
    return note


def named_by_notes(bucket: Bucket, folder: str, now: float) -> set[str]:
    """Return the blobs named by a folder's notes that still count; `now` by the store's clock."""
    found: set[str] = set()
    for note in bucket.list(folder):
        data = bucket.get(note.path) if now - note.modified < LIFE else None
        if data is None:  # of one that was killed, or its writer has just ended
            continue
        try:
            found.update(json.loads(data)["blobs"])
        except (ValueError, KeyError, TypeError):
            where = bucket.describe(note.path)
            raise SnapshotError(
                "InvalidManifest", f"{where} is damaged: delete it when no other work goes on."
            ) from None
    return found


def commit(
    bucket: Bucket,
    path: str,
    data: bytes,
    blobs: Mapping[str, int],
    bring: Callable[[set[str]], None],
    *,
    wait: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Write a manifest once all that it names (size by blob) is there, and stays.

    `bring` is called for blobs that are missing. Raises SnapshotError(Unavailable) when they keep
    vanishing.
    """
    patience = clock() + LIFE + PROMPT
    for _ in range(ROUNDS):
        missing = _try(bucket, path, data, blobs, clock)
        while missing is None and clock() < patience:
            wait(PAUSE)
            missing = _try(bucket, path, data, blobs, clock)
        if missing is None:
            break
        if not missing:
            return
        bring(missing)
    raise SnapshotError(
        "Unavailable",
        f"{bucket.describe(path)} was not written: its blobs are collected as garbage again and "
        "again; let the collection end and take the snapshot again.",
    )


def _try(
    bucket: Bucket, path: str, data: bytes, blobs: Mapping[str, int], clock: Callable[[], float]
) -> set[str] | None:
    """Commit and return nothing, or return what is missing; None while gc stands in the way."""
    begun = clock()
    intent = write_note(bucket, INTENTS, blobs)
    missing = None
    if not blobs.keys() & named_by_notes(bucket, CONDEMNED, intent.modified):
        missing = {blob for blob, size in blobs.items() if _size(bucket, blob) != size}
        if clock() - begun > PROMPT:
            missing = None
        elif not missing:
            bucket.put(path, data)  # should this fail, the intent stays: it may still arrive
    with contextlib.suppress(SnapshotError):  # credentials that may not delete leave it to gc
        bucket.delete([intent.path])
    return missing


def _size(bucket: Bucket, blob: str) -> int | None:
    found = bucket.head(blob_key(blob))
    return None if found is None else found.size
