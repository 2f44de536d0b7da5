"""Captures an engine's compile cache into the store, beside the snapshot that it belongs to."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from glowplug_snapshotter import intents
from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.checksum import blake3, crc32c
from glowplug_snapshotter.compiled.format import (
    MOST_FILES,
    PACK,
    SIZE_LIMIT,
    Cache,
    Key,
    Member,
    encode,
    path_of,
)
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.events import Emit, Event
from glowplug_snapshotter.manifest import CHUNK_SIZE, File, safe_path
from glowplug_snapshotter.multipart import UploadGoneError
from glowplug_snapshotter.plan import manifest_key
from glowplug_snapshotter.store import Store

SOURCE = "compile-cache"  # in the store's records, where models have their URL
PIECE = 1 << 20  # bytes read at a time; a chunk is a whole number of them
OWN = ".glowplug-"  # beginning of names that the restore of a cache leaves behind


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file of the directory, as it was when it was listed."""

    path: str
    stat: os.stat_result


def capture(store: Store, digest: str, directory: Path, key: Key, emit: Emit) -> Event:
    """Store the directory as the compile cache of a snapshot; return the result event.

    Only regular files count. Symbolic links are never followed: they, sockets and the like are
    left out and told of. Raises SnapshotError: NotFound, SourceChanged, Unsupported (too large).
    """
    _require_snapshot(store, digest)
    found, left_out = _list(directory)
    if not found:
        raise SnapshotError("NotFound", f"{directory} holds no files: there is no cache in it.")
    for name in left_out:
        emit({"event": "leftOut", "name": name})
    members = _pack(directory, found)
    size = max((member.offset + member.size for member in members), default=0)
    packer = _Packer(directory, members)
    pack, sent = _send(store, packer, members, size)
    cache = Cache(digest, key, pack, tuple(members))

    def bring(lost: set[str]) -> None:
        _send(store, packer, members, size)

    path = path_of(digest, key)
    intents.commit(store.bucket, path, encode(cache), {pack.blake3: pack.size}, bring)
    return {
        "event": "result",
        "digest": digest,
        "cache": store.bucket.describe(path),
        "files": len(members),
        "bytes": cache.size,
        "uploaded": sent,
        "leftOut": len(left_out),
    }


def _require_snapshot(store: Store, digest: str) -> None:
    path = manifest_key(digest)
    data = store.bucket.get(path)
    if data is None or manifests.digest_of(data) != digest:
        where = store.bucket.describe(path)
        raise SnapshotError("NotFound", f"{where}, which the cache belongs to, is not there whole.")


def _list(directory: Path) -> tuple[list[Found], list[str]]:
    if not directory.is_dir():
        raise SnapshotError("NotFound", f"{directory} is not a directory.")
    found, left_out, total = [], [], 0
    for folder, folders, names in os.walk(directory):
        folders.sort()
        for name in sorted([*names, *(f for f in folders if Path(folder, f).is_symlink())]):
            full = Path(folder, name)
            path = full.relative_to(directory).as_posix()
            if path.startswith(OWN):
                continue
            info = full.lstat()
            if not stat.S_ISREG(info.st_mode):
                left_out.append(path)
                continue
            total += info.st_size
            found.append(Found(_safe(path), info))
            if total > SIZE_LIMIT or len(found) > MOST_FILES:
                raise SnapshotError(
                    "Unsupported",
                    f"{directory} holds more than {MOST_FILES} files or {SIZE_LIMIT >> 30} GiB: "
                    "that is not a compile cache.",
                )
    return sorted(found, key=lambda file: file.path), left_out


def _safe(path: str) -> str:
    try:
        path.encode()
        return safe_path(path)
    except ValueError:
        raise SnapshotError("Unsupported", f"{path!r} cannot be a file's name here.") from None


def _pack(directory: Path, found: list[Found]) -> list[Member]:
    """Give each content its place, the same content the same."""
    places: dict[tuple[str, int], int] = {}
    end, members = 0, []
    for file in found:
        size = file.stat.st_size
        digest = _hash(directory, file.path, size)
        offset = places.get((digest, size))
        if offset is None:
            offset = places[digest, size] = end if size else 0
            end += size
        executable = bool(file.stat.st_mode & stat.S_IXUSR)
        members.append(Member(file.path, size, offset, digest, executable, file.stat.st_mtime_ns))
    return members


def _hash(directory: Path, path: str, size: int) -> str:
    whole = blake3()
    for piece in _pieces(directory, path, size):
        whole.update(piece)
    return whole.hexdigest()


def _pieces(directory: Path, path: str, size: int) -> Generator[bytes, None, None]:
    """Yield the file piece by piece; raises SnapshotError unless it has this many bytes."""
    fd = os.open(directory / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        left = size
        while left and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            yield piece
        if left or file.read(1):
            raise _changed(directory, path)


def _changed(directory: Path, path: str) -> SnapshotError:
    return SnapshotError(
        "SourceChanged",
        f"{directory}/{path} was written while it was read: capture the cache when the engine "
        "has ended or serves.",
    )


class _Packer:
    """Reads the pack once, in chunks, and learns what proves it."""

    def __init__(self, directory: Path, members: list[Member]) -> None:
        self._directory = directory
        firsts = {member.offset: member for member in reversed(members) if member.size}
        self._contents = [firsts[offset] for offset in sorted(firsts)]
        self._hash = blake3()
        self._crcs: list[int] = []

    def chunks(self) -> Generator[bytes, None, None]:
        """Yield the chunks; raises SnapshotError when a file is not what it was."""
        self._hash, self._crcs = blake3(), []
        chunk = bytearray()
        for member in self._contents:
            whole = blake3()
            for piece in _pieces(self._directory, member.path, member.size):
                whole.update(piece)
                chunk += piece
                if len(chunk) >= CHUNK_SIZE:
                    yield self._learn(bytes(chunk[:CHUNK_SIZE]))
                    del chunk[:CHUNK_SIZE]
            if whole.hexdigest() != member.blake3:
                raise _changed(self._directory, member.path)
        if chunk:
            yield self._learn(bytes(chunk))

    def file(self) -> File:
        """Return the pack's entry, once the chunks ended."""
        size = sum(member.size for member in self._contents)
        return File(PACK, size, self._hash.hexdigest(), tuple(self._crcs))

    def _learn(self, chunk: bytes) -> bytes:
        self._hash.update(chunk)
        self._crcs.append(crc32c(chunk))
        return chunk


def _send(store: Store, packer: _Packer, members: list[Member], size: int) -> tuple[File, int]:
    """Have the pack in the store; return it and the bytes that were sent."""
    identity = json.dumps([[m.blake3, m.size] for m in members])
    entry = Entry(PACK, size, blake3(identity.encode()).hexdigest())
    known = store.recall(SOURCE, entry)
    if known is not None:
        return known, 0
    if size > CHUNK_SIZE:
        try:
            return store.send(SOURCE, entry, packer.chunks(), packer.file)
        except UploadGoneError:  # somebody captured the same files faster
            return store.send(SOURCE, entry, packer.chunks(), packer.file)
    data = b"".join(packer.chunks())
    file = packer.file()
    store.put_blob(file.blake3, data)
    store.remember(SOURCE, entry, file)
    return file, size
