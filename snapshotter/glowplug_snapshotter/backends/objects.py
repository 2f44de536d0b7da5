"""Object stores (S3, GCS, Azure) through obstore, which also knows where credentials come from."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.store import AzureStore, GCSStore, S3Store

from glowplug_snapshotter.backends import Entry, Ticket
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

    def close(self) -> None:
        """Do nothing: obstore closes its connections itself."""

    def read_into(
        self, entry: Entry, offset: int, view: memoryview, ticket: Ticket | None = None
    ) -> None:
        """Fill `view` by one ranged GET with If-Match."""
        if ticket is None:
            self._read(entry, offset, view, Ticket())
        else:
            _Interruptible(self, entry, offset, view, ticket).run()

    def _read(self, entry: Entry, offset: int, view: memoryview, ticket: Ticket) -> None:
        where = self.describe(entry.path)
        options: GetOptions = {"range": (offset, offset + len(view))}
        if entry.validator is not None:
            options["if_match"] = entry.validator
        done = 0
        try:
            result = obstore.get(self.store, self.key(entry.path), options=options)
            ticket.answered()
            if entry.validator is not None and result.meta["e_tag"] != entry.validator:
                raise SnapshotError("SourceChanged", f"{where} was replaced while it was read.")
            if result.meta["size"] != entry.size:
                raise SnapshotError(
                    "SourceChanged",
                    f"{where} has {result.meta['size']} bytes where {entry.size} were expected.",
                )
            for piece in result.stream(min_chunk_size=PIECE):
                if done + len(piece) > len(view):
                    raise TransientError(f"{where} sent more bytes than asked.")
                with ticket.writing():
                    view[done : done + len(piece)] = piece
                done += len(piece)
        except SnapshotError:
            raise
        except Exception as error:
            raise translate(error, where) from None
        if done < len(view):
            raise TransientError(f"{where} was cut after {done} bytes.")


class _Interruptible:
    """One read in a thread of its own, since nothing wakes a thread that waits inside obstore.

    Given up, the thread is left behind until obstore's own timeout; it writes nothing any more.
    """

    def __init__(
        self, reader: ObjectReader, entry: Entry, offset: int, view: memoryview, ticket: Ticket
    ) -> None:
        self._ticket = ticket
        self._ended = threading.Event()
        self._error: Exception | None = None
        self._request = (entry, offset, view, ticket)
        self._reader = reader

    def run(self) -> None:
        """Read, or raise TransientError as soon as the ticket is given up."""
        with self._ticket.interruptible(self._ended.set):
            threading.Thread(target=self._read, daemon=True).start()
            self._ended.wait()
        if self._ticket.given_up:
            raise TransientError(f"{self._reader.describe(self._request[0].path)} was given up.")
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        try:
            self._reader._read(*self._request)
        except Exception as error:
            self._error = error
        finally:
            self._ended.set()


class SignedReader(HttpReader):
    """S3 over plain HTTP with credentials that obstore finds and renews: it signs each URL."""

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
