"""The snapshot's manifest: what a model is made of, and the proof of every byte of it.

A snapshot is committed by its manifest, which is written last. Its digest is blake3 over the
canonical bytes, which are the stored bytes. Blobs are named by the blake3 of their content.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from glowplug_snapshotter.checksum import blake3
from glowplug_snapshotter.errors import SnapshotError

VERSION = 1
CHUNK_SIZE = 16 * 1024 * 1024
CHUNK_LIMIT = 64 * 1024 * 1024  # bytes; a restore holds a few chunks in memory
MANIFEST_LIMIT = 256 * 1024 * 1024  # bytes; a 10 TB model's manifest stays below it
SIZE_LIMIT = 1 << 50  # bytes of one file
HEX_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One safetensors tensor; `begin` and `end` are byte offsets from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class File:
    """One file of a snapshot: its content address and the crc32c of each chunk."""

    path: str
    size: int
    blake3: str
    crc32c: tuple[int, ...]
    tensors: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole snapshot. `source` and `revision` say where it was taken from."""

    source: str
    revision: str | None
    files: tuple[File, ...]
    chunk_size: int = CHUNK_SIZE

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def encode(manifest: Manifest) -> bytes:
    """Return the canonical bytes: sorted keys, no spaces, files by path."""
    body = {
        "version": VERSION,
        "source": {"url": manifest.source, "revision": manifest.revision},
        "chunkSize": manifest.chunk_size,
        "files": [encode_file(f) for f in sorted(manifest.files, key=lambda f: f.path)],
    }
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def encode_file(file: File) -> dict[str, Any]:
    """Return one file's entry as plain data."""
    entry: dict[str, Any] = {
        "path": file.path,
        "size": file.size,
        "blake3": file.blake3,
        "crc32c": [f"{crc:08x}" for crc in file.crc32c],
    }
    if file.tensors:
        entry["tensors"] = [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "offsets": [t.begin, t.end]}
            for t in file.tensors
        ]
    return entry


def digest_of(data: bytes) -> str:
    """Return `blake3:<hex>` of a manifest's stored bytes."""
    return f"blake3:{blake3(data).hexdigest()}"


def decode(data: bytes, where: str) -> Manifest:
    """Parse and check a manifest; `where` names it in errors.

    Raises SnapshotError(InvalidManifest) for anything but a well-formed manifest of this version:
    paths that climb out, sizes that cannot be, chunk counts that do not fit.
    """
    try:
        body = json.loads(data)
        if body["version"] != VERSION:
            raise ValueError(
                f"it has version {body['version']}, this program reads version {VERSION}: "
                "use a newer glowplug-snapshotter"
            )
        chunk_size = _whole(body["chunkSize"], "chunkSize", 4096, CHUNK_LIMIT)
        files = tuple(decode_file(entry, chunk_size) for entry in body["files"])
        paths = [file.path for file in files]
        if len(set(paths)) != len(paths):
            raise ValueError("it names a path twice")
        source = body["source"]
        return Manifest(str(source["url"]), source["revision"], files, chunk_size)
    except KeyError as error:
        raise SnapshotError("InvalidManifest", f"{where} lacks the field {error}.") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError(
            "InvalidManifest", f"{where} is not a valid manifest: {error}."
        ) from None


def decode_file(entry: dict[str, Any], chunk_size: int) -> File:
    """Check one file's entry; raises ValueError, KeyError or TypeError."""
    path = safe_path(entry["path"])
    size = _whole(entry["size"], f"{path}: size", 0, SIZE_LIMIT)
    blob = entry["blake3"]
    if len(blob) != 64 or not set(blob) <= HEX_DIGITS:
        raise ValueError(f"{path}: blake3 is not 64 hex digits")
    crcs = tuple(int(crc, 16) for crc in entry["crc32c"])
    if len(crcs) != -(-size // chunk_size):
        raise ValueError(f"{path}: {len(crcs)} checksums for {size} bytes")
    return File(path, size, blob, crcs, tuple(_tensor(t, size) for t in entry.get("tensors", ())))


def safe_path(path: object) -> str:
    """Return a relative path that stays below its root; raises ValueError for any other."""
    if not isinstance(path, str) or not path or "\0" in path or "\\" in path:
        raise ValueError(f"{path!r} is not a file's path")
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"the path {path!r} leaves the model's directory")
    return path


def _tensor(entry: dict[str, Any], size: int) -> Tensor:
    begin, end = entry["offsets"]
    if not 0 <= begin <= end <= size:
        raise ValueError(f"tensor {entry['name']!r} lies outside of its file")
    return Tensor(entry["name"], entry["dtype"], tuple(entry["shape"]), begin, end)


def _whole(value: object, name: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, expected a whole number from {low} to {high}")
    return value
