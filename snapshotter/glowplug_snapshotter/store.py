"""The store that snapshots are written to: content-addressed blobs, manifests, source records.

<store>/blobs/<blake3>                    content
<store>/manifests/<digest>/manifest.json  the commit, written last
<store>/caches/<digest>/<key>.json        compile caches of a snapshot (see compiled.py)
<store>/sources/<hash>.json               what a pinned source file was found to hold
<store>/uploads/<hash>                    a large file on its way, its content's hash not known yet
<store>/intents, <store>/condemned        notes of commits and collections (see intents.py)
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from glowplug_snapshotter import intents
from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.bucket import Bucket, S3Bucket
from glowplug_snapshotter.checksum import blake3
from glowplug_snapshotter.errors import SnapshotError, TransientError
from glowplug_snapshotter.manifest import CHUNK_SIZE, File, decode_file, encode_file
from glowplug_snapshotter.plan import blob_key, manifest_key

if TYPE_CHECKING:
    from glowplug_snapshotter.multipart import Uploads


def open_store(url: str, endpoint: str | None, env: Mapping[str, str]) -> Store:
    """Open the store below an s3:// prefix, with the credentials in `env`."""
    bucket = S3Bucket(url, endpoint, env)

    def uploads() -> Uploads:
        from glowplug_snapshotter.multipart import Uploads  # boto3 is slow to import

        return Uploads(bucket, endpoint, env)

    return Store(bucket, uploads)


class Store:
    """Writes by the layout above."""

    def __init__(self, bucket: Bucket, uploads: Callable[[], Uploads]) -> None:
        self.bucket = bucket
        self._open_uploads = uploads

    @cached_property
    def uploads(self) -> Uploads:
        """The multipart uploads."""
        return self._open_uploads()

    def has_blob(self, blake3_hex: str, size: int) -> bool:
        """Say whether this content is there whole."""
        found = self.bucket.head(blob_key(blake3_hex))
        return found is not None and found.size == size

    def put_blob(self, blake3_hex: str, data: bytes | bytearray) -> None:
        """Write a small blob in one request."""
        self.bucket.put(blob_key(blake3_hex), data)

    def send(
        self,
        source: str,
        entry: Entry,
        parts: Iterable[bytes | bytearray],
        learned: Callable[[], File],
    ) -> tuple[File, int]:
        """Upload a large file as the blob of its content; return it and the bytes sent.

        `learned` is asked once `parts` ended. Should the run be killed, the next one with the same
        pinned entry goes on. Raises UploadGoneError when another run got ahead of this one.
        """
        pinned = _is_pinned(entry)
        name = _identity(source, entry) if pinned else uuid.uuid4().hex
        upload = self.uploads.open(f"uploads/{name}")
        try:
            upload.send(parts)
            file = learned()
        except BaseException as error:
            hopeless = isinstance(error, SnapshotError) and not isinstance(error, TransientError)
            if hopeless or not pinned:
                upload.abort()
            raise
        if self.has_blob(file.blake3, file.size):
            upload.abort()
            self.remember(source, entry, file)
            return file, upload.sent
        etag = upload.finish()
        self.remember(source, entry, file, {"path": upload.path, "etag": etag})
        self._adopt(upload.path, etag, file)
        return file, upload.sent

    def commit(
        self,
        digest: str,
        data: bytes,
        blobs: Mapping[str, int],
        bring: Callable[[set[str]], None],
        wait: Callable[[float], object] = time.sleep,
    ) -> str:
        """Write the manifest, which makes the snapshot exist; return its URL.

        `blobs` are the sizes of what it names; `bring` is asked for what is missing after all.
        """
        path = manifest_key(digest)
        intents.commit(self.bucket, path, data, blobs, bring, wait=wait)
        return self.bucket.describe(path)

    def recall(self, source: str, entry: Entry) -> File | None:
        """Return what this pinned file held when it was last taken, if its content is here."""
        if not _is_pinned(entry):
            return None
        try:
            body = json.loads(self.bucket.get(_record_key(source, entry)) or b"null")
            file = decode_file(body, CHUNK_SIZE)
            upload = body.get("upload")
            if file.size != entry.size or file.path != entry.path:
                return None
            if self.has_blob(file.blake3, file.size):
                return file
            if upload is None:
                return None
            self._adopt(upload["path"], upload["etag"], file)  # a run was killed before it did
        except (SnapshotError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return file

    def remember(
        self, source: str, entry: Entry, file: File, upload: Mapping[str, str] | None = None
    ) -> None:
        """Record what a pinned file holds, so that the next take need not read it.

        `upload` says where its content lies until it is a blob.
        """
        if _is_pinned(entry):
            body = encode_file(file) | ({"upload": dict(upload)} if upload else {})
            self.bucket.put(_record_key(source, entry), json.dumps(body).encode())

    def _adopt(self, path: str, etag: str, file: File) -> None:
        """Turn a finished upload into the blob of its content, inside the store."""
        target = blob_key(file.blake3)
        self.uploads.copy(path, etag, target)
        if not self.has_blob(file.blake3, file.size):
            raise TransientError(f"{self.bucket.describe(target)} was not stored whole.")
        with contextlib.suppress(SnapshotError):  # gc finds what is left
            self.bucket.delete([path])


def _is_pinned(entry: Entry) -> bool:
    return entry.validator is not None or entry.sha256 is not None


def _identity(source: str, entry: Entry) -> str:
    identity = json.dumps([source, entry.path, entry.size, entry.validator, entry.sha256])
    return blake3(identity.encode()).hexdigest()


def _record_key(source: str, entry: Entry) -> str:
    return f"sources/{_identity(source, entry)}.json"
