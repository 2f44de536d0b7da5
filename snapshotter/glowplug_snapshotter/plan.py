"""What a restore has to bring: each file, where its bytes lie, and what proves them."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.backends import Entry, Reader
from glowplug_snapshotter.checksum import blake3
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.manifest import CHUNK_SIZE, MANIFEST_LIMIT, Manifest
from glowplug_snapshotter.retry import with_retries
from glowplug_snapshotter.sources import open_source

MANIFEST_URL = re.compile(r"(?P<store>.+)/manifests/(?P<hex>[0-9a-f]{64})/manifest\.json")


WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth")  # endings of files that are loaded last


@dataclass(frozen=True, slots=True)
class Item:
    """One file to bring. `crc32c` is None where the source proves nothing chunk by chunk."""

    path: str
    entry: Entry
    crc32c: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """All files of a restore, the small ones (configuration, tokenizer) first."""

    reader: Reader
    items: tuple[Item, ...]
    chunk_size: int
    verified: str  # "snapshot" or "source"
    digest: str | None

    @property
    def size(self) -> int:
        """Bytes to bring."""
        return sum(item.entry.size for item in self.items)

    @property
    def fingerprint(self) -> str:
        """What two plans that bring the same bytes in the same chunks have in common."""
        entries = [
            [i.path, i.entry.path, i.entry.size, i.entry.validator, i.entry.sha256]
            for i in self.items
        ]
        identity = [self.verified, self.digest, self.reader.revision(), self.chunk_size, entries]
        return blake3(json.dumps(identity).encode()).hexdigest()


def plan_snapshot(
    url: str, digest: str | None, endpoint: str | None, cache: str | None = None
) -> Plan:
    """Read the manifest behind a store's URL and digest, or a manifest's own URL.

    `cache` is the address of a node's cache of that store, which is asked first.
    """
    reader, body, digest = open_manifest(url, digest, endpoint, cache)
    items = [
        Item(file.path, Entry(blob_key(file.blake3), file.size), file.crc32c) for file in body.files
    ]
    return Plan(reader, in_order(items), body.chunk_size, "snapshot", digest)


def open_manifest(
    url: str, digest: str | None, endpoint: str | None, cache: str | None = None
) -> tuple[Reader, Manifest, str]:
    """Return the store's reader, the manifest and its digest, which was checked.

    Raises SnapshotError: NotFound, Forbidden, DigestMismatch, InvalidManifest, InvalidURL.
    """
    found = MANIFEST_URL.fullmatch(url)
    store = found["store"] if found else url.rstrip("/")
    wanted = digest or (f"blake3:{found['hex']}" if found else None)
    if wanted is None:
        raise SnapshotError(
            "InvalidURL",
            f"{url} is a store, so --digest must say which of its snapshots is meant.",
        )
    if not re.fullmatch(r"blake3:[0-9a-f]{64}", wanted):
        raise SnapshotError("InvalidURL", f"{wanted!r} is not a digest: blake3:<64 hex digits>.")
    reader = _open_store(store, endpoint, cache, wanted)
    key = manifest_key(wanted)
    data = with_retries(lambda: reader.fetch(key, MANIFEST_LIMIT), threading.Event())
    actual = manifests.digest_of(data)
    if actual != wanted:
        raise SnapshotError(
            "DigestMismatch",
            f"{reader.describe(key)} has digest {actual}, not {wanted}: "
            "it was damaged or replaced; take the snapshot again.",
        )
    return reader, manifests.decode(data, reader.describe(key)), wanted


def _open_store(store: str, endpoint: str | None, cache: str | None, digest: str) -> Reader:
    if cache is None:
        return open_source(store, endpoint)
    from glowplug_snapshotter.backends.cached import CachedReader

    return CachedReader(cache, digest, lambda: open_source(store, endpoint))


def plan_source(url: str, endpoint: str | None) -> Plan:
    """List a source and pin every file of it."""
    reader = open_source(url, endpoint)
    entries = with_retries(reader.entries, threading.Event())
    if not entries:
        raise SnapshotError("NotFound", f"{url} holds no files: check the bucket and the prefix.")
    try:
        items = [Item(manifests.safe_path(entry.path), entry, None) for entry in entries]
    except ValueError as error:
        raise SnapshotError("Unsupported", f"{url}: {error}.") from None
    return Plan(reader, in_order(items), CHUNK_SIZE, "source", None)


def manifest_key(digest: str) -> str:
    """Return where a store keeps the manifest of `blake3:<hex>`."""
    return f"manifests/{digest.removeprefix('blake3:')}/manifest.json"


def blob_key(blake3_hex: str) -> str:
    """Return where a store keeps the content with this hash."""
    return f"blobs/{blake3_hex}"


def in_order(items: list[Item]) -> tuple[Item, ...]:
    """Put what an engine reads first first: configuration, tokenizer, then shards by number."""
    return tuple(sorted(items, key=lambda i: (i.path.endswith(WEIGHTS), _natural(i.path))))


def _natural(path: str) -> list[tuple[int, str]]:
    """Order `model-2` before `model-10`."""
    parts = re.split(r"(\d{1,18})", path)
    return [(int(p), "") if n % 2 else (0, p) for n, p in enumerate(parts)]
