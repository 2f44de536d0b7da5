"""Puts a compile cache where an engine looks for it, before the engine starts.

An engine without its cache compiles anew, which is slow but right. So whatever is missing, not the
same or damaged means that the cache is not used, with a sentence, and never that the start fails.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from glowplug_snapshotter.backends import Entry, Reader
from glowplug_snapshotter.checksum import blake3, crc32c
from glowplug_snapshotter.compiled.format import Cache, Member, checked_key, decode, path_of
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.events import Event
from glowplug_snapshotter.manifest import CHUNK_SIZE, MANIFEST_LIMIT
from glowplug_snapshotter.plan import blob_key
from glowplug_snapshotter.retry import with_retries

MARKER = ".glowplug-compiled.json"
PARTIAL = ".glowplug-compiling-"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which cache is wanted, and in which directory."""

    key: Mapping[str, object]
    directory: Path


def place(
    reader: Callable[[], Reader],
    digest: str | None,
    wanted: Wanted,
    clock: Callable[[], float] = time.monotonic,
) -> Event:
    """Restore the cache if the store has it for exactly this key; say what was done.

    `reader` opens the store. Files appear whole and proved, or not at all. Never raises an
    Exception for a cache that cannot be had.
    """
    begun = clock()
    try:
        if digest is None:
            raise SnapshotError("NotFound", "A model that is loaded from its source has none.")
        told = _place(reader(), digest, wanted)
    except SnapshotError as error:
        return {"used": False, "reason": error.message}
    except OSError as error:
        return {"used": False, "reason": f"{wanted.directory}: {error.strerror}."}
    except ValueError as error:
        return {"used": False, "reason": f"The cache holds a name that is none here: {error}."}
    return {**told, "seconds": round(clock() - begun, 4)}


def _place(reader: Reader, digest: str, wanted: Wanted) -> Event:
    key, to = checked_key(wanted.key), wanted.directory
    path = path_of(digest, key)
    if _is_empty(to):
        data = with_retries(lambda: reader.fetch(path, MANIFEST_LIMIT), threading.Event())
        cache = decode(data, reader.describe(path))
        if cache.snapshot != digest or dict(cache.key) != dict(key):
            where = reader.describe(path)
            raise SnapshotError("DigestMismatch", f"{where} is of another snapshot or key.")
        _bring(reader, cache, to)
        told = {"cache": path, "files": len(cache.members), "bytes": cache.size}
        (to / MARKER).write_text(json.dumps(told))
        return {"used": True, "reused": False, **told}
    try:
        told = json.loads((to / MARKER).read_text())
    except (OSError, ValueError):
        told = {}
    if told.get("cache") != path:
        raise SnapshotError("Unsupported", f"{to} holds files already: give an empty directory.")
    return {"used": True, "reused": True, **told}


def _is_empty(to: Path) -> bool:
    """Remove what a killed run left half done; say whether nothing is left."""
    to.mkdir(parents=True, exist_ok=True)
    for left in to.glob(f"{PARTIAL}*"):
        shutil.rmtree(left)
    return not any(to.iterdir())


def _bring(reader: Reader, cache: Cache, to: Path) -> None:
    """Write all files in a directory of our own, then move them to their names."""
    partial_to = to / f"{PARTIAL}{uuid.uuid4().hex}"
    partial_to.mkdir()
    try:
        _unpack(_chunks(reader, cache), cache, partial_to)
        tops = sorted(partial_to.iterdir())
        for top in tops:
            top.rename(to / top.name)
    finally:
        shutil.rmtree(partial_to, ignore_errors=True)


def _chunks(reader: Reader, cache: Cache) -> Iterator[memoryview]:
    """Yield the pack chunk by chunk, each proved, all in the same memory."""
    never = threading.Event()
    entry = Entry(blob_key(cache.pack.blake3), cache.pack.size)
    buffer = memoryview(bytearray(min(CHUNK_SIZE, cache.pack.size)))
    for number, expected in enumerate(cache.pack.crc32c):
        offset = number * CHUNK_SIZE
        view = buffer[: min(CHUNK_SIZE, cache.pack.size - offset)]
        with_retries(partial(reader.read_into, entry, offset, view), never)
        if crc32c(view) != expected:
            raise _damaged(reader.describe(entry.path))
        yield view


def _unpack(chunks: Iterator[memoryview], cache: Cache, to: Path) -> None:
    """Cut the pack into files; a content that several files have is written to each."""
    users: dict[int, list[Member]] = defaultdict(list)
    for member in cache.members:
        (to / member.path).parent.mkdir(parents=True, exist_ok=True)
        if member.size:
            users[member.offset].append(member)
        else:
            _create(to, member).close()
            _stamp(to, member)
    chunk, at = memoryview(b""), 0
    for offset in sorted(users):
        same = users[offset]
        whole, left = blake3(), same[0].size
        with ExitStack() as stack:
            files = [stack.enter_context(_create(to, member)) for member in same]
            while left:
                if at == len(chunk):
                    chunk, at = next(chunks), 0
                piece = chunk[at : at + left]
                whole.update(piece)
                for file in files:
                    file.write(piece)
                at, left = at + len(piece), left - len(piece)
        if any(whole.hexdigest() != member.blake3 for member in same):
            raise _damaged(same[0].path)
        for member in same:
            _stamp(to, member)


def _create(to: Path, member: Member) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(to / member.path, flags, 0o777 if member.executable else 0o666), "wb")


def _stamp(to: Path, member: Member) -> None:
    os.utime(to / member.path, ns=(member.mtime, member.mtime))


def _damaged(what: str) -> SnapshotError:
    return SnapshotError(
        "ChecksumMismatch", f"{what} does not match its checksum: the cache is not used."
    )
