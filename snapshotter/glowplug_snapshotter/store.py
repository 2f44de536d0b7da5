"""The store that snapshots are written to: content-addressed blobs, manifests, source records.

<store>/blobs/<blake3>                    content
<store>/manifests/<digest>/manifest.json  the commit, written last
<store>/sources/<hash>.json               what a pinned source file was found to hold
<store>/uploads/<random>                  a large file on its way, its hash not known yet
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from blake3 import blake3

from glowplug_snapshotter.backends import Entry, buckets
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.manifest import CHUNK_SIZE, File, decode_file, encode_file
from glowplug_snapshotter.plan import blob_key, manifest_key

T = TypeVar("T")

PARTS_IN_FLIGHT = 3
MOST_PARTS = 9_000  # of one multipart upload; S3 allows 10,000
COPY_LIMIT = 5 * 10**9  # bytes that one S3 CopyObject takes


class Store:
    """Writes below one s3:// prefix."""

    def __init__(self, url: str, endpoint: str | None, env: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise SnapshotError("InvalidURL", f"{url!r} is not a store: use s3://bucket/prefix.")
        prefix = unquote(parts.path).strip("/")
        self.url = url.rstrip("/")
        self._bucket = parts.netloc
        self._endpoint = endpoint
        self._prefix = f"{prefix}/" if prefix else ""
        self._env = env
        self._objects = buckets.open_s3(parts.netloc, endpoint, env, buckets.STORE_PREFIX)

    def has_blob(self, blake3_hex: str, size: int) -> bool:
        """Say whether this content is there whole."""
        return self._size(blob_key(blake3_hex)) == size

    def put_blob(self, blake3_hex: str, data: bytes | bytearray) -> None:
        """Write a small blob in one request."""
        self._put(blob_key(blake3_hex), data)

    def upload(self, size: int, pieces: Iterable[bytes | bytearray]) -> str:
        """Stream a large file to a temporary key in parts; return the key.

        The object appears only when `pieces` ended well; an exception in it aborts the upload.
        """
        path = f"uploads/{uuid.uuid4().hex}"
        part = max(CHUNK_SIZE, -(-size // MOST_PARTS))
        self._call(
            path,
            lambda key: obstore.put(
                self._objects,
                key,
                pieces,
                use_multipart=True,
                chunk_size=part,
                max_concurrency=PARTS_IN_FLIGHT,
            ),
        )
        return path

    def adopt(self, upload: str, blake3_hex: str, size: int) -> None:
        """Turn a finished upload into the blob of its content, inside the store."""
        if size > COPY_LIMIT:
            self._copy_in_parts(upload, blob_key(blake3_hex))
        else:
            target = self._prefix + blob_key(blake3_hex)
            self._call(upload, lambda key: obstore.copy(self._objects, key, target))
        if not self.has_blob(blake3_hex, size):
            raise SnapshotError(
                "Unavailable", f"{self.describe(blob_key(blake3_hex))} was not stored whole."
            )
        self.discard(upload)

    def discard(self, upload: str) -> None:
        """Remove a temporary object; one left behind is garbage, not an error."""
        with contextlib.suppress(SnapshotError):
            self._call(upload, lambda key: obstore.delete(self._objects, key))

    def commit(self, digest: str, data: bytes) -> str:
        """Write the manifest, which makes the snapshot exist; return its URL."""
        path = manifest_key(digest)
        self._put(path, data)
        return self.describe(path)

    def recall(self, source: str, entry: Entry) -> File | None:
        """Return what this pinned file held when it was last taken, if its blob is still there."""
        if entry.validator is None and entry.sha256 is None:
            return None
        try:
            data = self._call(
                _record_key(source, entry),
                lambda key: bytes(obstore.get(self._objects, key).bytes()),
            )
            file = decode_file(json.loads(data), CHUNK_SIZE)
        except (SnapshotError, ValueError, KeyError, TypeError):
            return None
        whole = file.size == entry.size and self.has_blob(file.blake3, file.size)
        return file if whole and file.path == entry.path else None

    def remember(self, source: str, entry: Entry, file: File) -> None:
        """Record what a pinned file holds, so that the next take need not read it."""
        if entry.validator is not None or entry.sha256 is not None:
            self._put(_record_key(source, entry), json.dumps(encode_file(file)).encode())

    def describe(self, path: str) -> str:
        """Return bucket and key."""
        return f"s3://{self._bucket}/{self._prefix}{path}"

    def _size(self, path: str) -> int | None:
        try:
            return self._call(path, lambda key: obstore.head(self._objects, key)["size"])
        except SnapshotError as error:
            if error.reason == "NotFound":
                return None
            raise

    def _put(self, path: str, data: bytes | bytearray) -> None:
        self._call(path, lambda key: obstore.put(self._objects, key, data, use_multipart=False))

    def _call(self, path: str, request: Callable[[str], T]) -> T:
        try:
            return request(self._prefix + path)
        except SnapshotError:
            raise
        except Exception as error:
            raise buckets.translate(error, self.describe(path)) from None

    def _copy_in_parts(self, source: str, target: str) -> None:
        client = buckets.boto3_client(self._endpoint, self._env, buckets.STORE_PREFIX)
        try:
            client.copy(
                {"Bucket": self._bucket, "Key": self._prefix + source},
                self._bucket,
                self._prefix + target,
            )
        except Exception as error:
            raise SnapshotError(
                "Unavailable", f"{self.describe(target)} could not be copied: {error}."
            ) from None


def _record_key(source: str, entry: Entry) -> str:
    identity = json.dumps([source, entry.path, entry.size, entry.validator, entry.sha256])
    return f"sources/{blake3(identity.encode()).hexdigest()}.json"
