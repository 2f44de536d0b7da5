"""A compile cache's manifest: its key, its files, and the proof of every byte.

All files of a cache lie in one blob, the pack, behind each other and each content once: caches are
thousands of small files, and a cold start has no time for thousands of requests. The manifest is
`{"digest": ..., "body": {...}}`, where the digest is blake3 over the body's canonical bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glowplug_snapshotter.checksum import blake3
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.manifest import CHUNK_SIZE, File, decode_file, encode_file, safe_path

VERSION = 1
KEY_PARTS = ("engineImage", "gpuArchitecture", "driver", "arguments")
LONGEST_PART = 1024  # characters
SIZE_LIMIT = 8 << 30  # bytes of all files
MOST_FILES = 200_000
PACK = "pack"

Key = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the cache; `offset` in the pack, `mtime` in ns (ninja rebuilds by it)."""

    path: str
    size: int
    offset: int
    blake3: str
    executable: bool
    mtime: int


@dataclass(frozen=True, slots=True)
class Cache:
    """A whole cache of the snapshot with this digest."""

    snapshot: str
    key: Key
    pack: File
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(member.size for member in self.members)


def checked_key(parts: Mapping[str, object]) -> Key:
    """Return the key; raises SnapshotError(InvalidKey) unless every part is known, and no other.

    A cache compiled for something else can crash an engine or make it wrong, so nothing is assumed.
    """
    for name in parts:
        if name not in KEY_PARTS:
            raise _no_key(f"{name!r} is not a part of it")
    key = {}
    for name in KEY_PARTS:
        value = parts.get(name)
        if value is None or value == "":
            raise _no_key(f"{name} is missing")
        if not isinstance(value, str) or len(value) > LONGEST_PART or not value.isprintable():
            raise _no_key(f"{name} is not a line of at most {LONGEST_PART} characters")
        key[name] = value
    return key


def path_of(digest: str, key: Key) -> str:
    """Return where a store keeps the cache of a snapshot's digest for this key."""
    name = blake3(_canonical(dict(key))).hexdigest()
    return f"caches/{digest.removeprefix('blake3:')}/{name}.json"


def encode(cache: Cache) -> bytes:
    """Return the bytes to store."""
    body = {
        "version": VERSION,
        "snapshot": cache.snapshot,
        "key": dict(cache.key),
        "pack": encode_file(cache.pack),
        "files": [
            {
                "path": m.path,
                "size": m.size,
                "offset": m.offset,
                "blake3": m.blake3,
                "executable": m.executable,
                "mtime": m.mtime,
            }
            for m in cache.members
        ],
    }
    return _canonical({"digest": blake3(_canonical(body)).hexdigest(), "body": body})


def decode(data: bytes, where: str) -> Cache:
    """Parse and check; `where` names the cache in errors. Raises SnapshotError(InvalidManifest)."""
    try:
        whole = json.loads(data)
        body = whole["body"]
        if blake3(_canonical(body)).hexdigest() != whole["digest"]:
            raise ValueError("its body does not have its digest")
        if body["version"] != VERSION:
            raise ValueError(
                f"it has version {body['version']}, this program reads version {VERSION}: "
                "use a newer glowplug-snapshotter"
            )
        pack = decode_file(body["pack"], CHUNK_SIZE)
        members = tuple(_member(entry, pack) for entry in body["files"])
        cache = Cache(str(body["snapshot"]), checked_key(body["key"]), pack, members)
        _check(cache)
    except KeyError as error:
        raise SnapshotError("InvalidManifest", f"{where} lacks the field {error}.") from None
    except SnapshotError as error:
        raise SnapshotError("InvalidManifest", f"{where}: {error.message}") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError(
            "InvalidManifest", f"{where} is not a valid compile cache: {error}."
        ) from None
    return cache


def _check(cache: Cache) -> None:
    if len(cache.members) > MOST_FILES or cache.size > SIZE_LIMIT:
        raise ValueError(f"{len(cache.members)} files of {cache.size} bytes are absurd")
    if len({member.path for member in cache.members}) != len(cache.members):
        raise ValueError("it names a path twice")
    end = 0
    for offset, size in sorted({(m.offset, m.size) for m in cache.members if m.size}):
        if offset != end:
            raise ValueError(f"its contents do not fill the pack without a gap at byte {end}")
        end = offset + size
    if end != cache.pack.size:
        raise ValueError(f"its contents end at {end}, its pack at {cache.pack.size}")


def _member(entry: dict[str, Any], pack: File) -> Member:
    path = safe_path(entry["path"])
    size, offset, mtime = entry["size"], entry["offset"], entry["mtime"]
    for value in (size, offset, mtime):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
            raise ValueError(f"{path}: {value!r} is not a size, an offset or a time")
    if offset + size > pack.size:
        raise ValueError(f"{path} reaches past the end of the pack")
    return Member(path, size, offset, str(entry["blake3"]), entry["executable"] is True, mtime)


def _canonical(body: object) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _no_key(what: str) -> SnapshotError:
    return SnapshotError(
        "InvalidKey", f"This is no key of a compile cache: {what}; it has {', '.join(KEY_PARTS)}."
    )
