"""Object stores (S3, GCS, Azure) through obstore; S3 over plain HTTP is only signed by it.

Receiving into the caller's buffer costs half the CPU of copying out of obstore's stream, so where
there is no TLS to do, `http` moves the bytes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.store import AzureStore, GCSStore, S3Store

from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.backends.buckets import translate
from glowplug_snapshotter.backends.http import HttpReader
from glowplug_snapshotter.errors import SnapshotError, TransientError

if TYPE_CHECKING:
    from obstore import GetOptions

SIGNED_FOR = timedelta(minutes=15)
PIECE = 1 << 20  # bytes copied at a time from obstore's stream

Bucket = S3Store | GCSStore | AzureStore


class ObjectReader:
    """Objects below a prefix of one bucket or container."""

    streams = 8

    def __init__(self, store: Bucket, scheme: str, bucket: str, prefix: str) -> None:
        self.store = store
        self._root = f"{scheme}://{bucket}"
        self._prefix = f"{prefix}/" if prefix else ""

    def key(self, path: str) -> str:
        """Return the object's key in its bucket."""
        return self._prefix + path

    def describe(self, path: str) -> str:
        """Return scheme, bucket and key."""
        return f"{self._root}/{self.key(path)}"

    def revision(self) -> str | None:
        """Return None: a prefix has no revisions."""
        return None

    def entries(self) -> list[Entry]:
        """Return all objects below the prefix, pinned by their ETags."""
        found = []
        try:
            for page in obstore.list(self.store, prefix=self._prefix.rstrip("/") or None):
                for meta in page:
                    path = meta["path"].removeprefix(self._prefix)
                    if not path.endswith("/"):
                        found.append(Entry(path, meta["size"], meta["e_tag"]))
        except Exception as error:
            raise translate(error, self.describe("")) from None
        return sorted(found, key=lambda entry: entry.path)

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small object whole."""
        try:
            result = obstore.get(self.store, self.key(path))
            if result.meta["size"] > limit:
                raise SnapshotError("Unsupported", f"{self.describe(path)} is over {limit} bytes.")
            return bytes(result.bytes())
        except SnapshotError:
            raise
        except Exception as error:
            raise translate(error, self.describe(path)) from None

    def read_into(self, entry: Entry, offset: int, view: memoryview) -> None:
        """Fill `view` by one ranged GET with If-Match."""
        where = self.describe(entry.path)
        options: GetOptions = {"range": (offset, offset + len(view))}
        if entry.validator is not None:
            options["if_match"] = entry.validator
        done = 0
        try:
            result = obstore.get(self.store, self.key(entry.path), options=options)
            if result.meta["size"] != entry.size:
                raise SnapshotError(
                    "SourceChanged",
                    f"{where} has {result.meta['size']} bytes where {entry.size} were expected.",
                )
            for piece in result.stream(min_chunk_size=PIECE):
                if done + len(piece) > len(view):
                    raise TransientError(f"{where} sent more bytes than asked.")
                view[done : done + len(piece)] = piece
                done += len(piece)
        except SnapshotError:
            raise
        except Exception as error:
            raise translate(error, where) from None
        if done < len(view):
            raise TransientError(f"{where} was cut after {done} bytes.")


class SignedReader(HttpReader):
    """S3 over plain HTTP: each URL signed by obstore, the bytes received by `HttpReader`."""

    def __init__(self, objects: ObjectReader) -> None:
        super().__init__("")
        self._objects = objects

    def describe(self, path: str) -> str:
        """Return bucket and key; the signed URL itself is a credential."""
        return self._objects.describe(path)

    def entries(self) -> list[Entry]:
        """Return what the bucket lists."""
        return self._objects.entries()

    def url_for(self, path: str) -> str:
        """Return a URL signed for this request."""
        try:
            return obstore.sign(self._objects.store, "GET", self._objects.key(path), SIGNED_FOR)
        except Exception as error:
            raise translate(error, self.describe(path)) from None
