"""What a store is kept in: a flat space of objects that lists itself as it is at that moment.

`Bucket` is all that the store's rules need, so that they can be tried out one request at a time.
Every request sees those that ended before it began: S3, GCS and SeaweedFS promise that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import obstore

from glowplug_snapshotter.backends import buckets
from glowplug_snapshotter.errors import SnapshotError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object; `modified` is when it was written, by the store's clock (s since the epoch)."""

    path: str
    size: int
    modified: float
    etag: str | None


class Bucket(Protocol):
    """Objects by their path below the store's prefix. Errors are SnapshotErrors."""

    def describe(self, path: str) -> str:
        """Return the object's name for people."""

    def put(self, path: str, data: bytes | bytearray) -> None:
        """Write a whole object."""

    def get(self, path: str) -> bytes | None:
        """Return a small object, None when it is not there."""

    def head(self, path: str) -> Stored | None:
        """Return what an object is, None when it is not there."""

    def list(self, folder: str) -> list[Stored]:
        """Return every object whose path begins with `folder` and a slash."""

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects; one that is not there is no error."""


class S3Bucket:
    """A prefix of an S3 bucket, through obstore."""

    def __init__(self, url: str, endpoint: str | None, env: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise SnapshotError("InvalidURL", f"{url!r} is not a store: use s3://bucket/prefix.")
        prefix = unquote(parts.path).strip("/")
        self.name = parts.netloc
        self.prefix = f"{prefix}/" if prefix else ""
        self._objects = buckets.open_s3(parts.netloc, endpoint, env, buckets.STORE_PREFIX)

    def describe(self, path: str) -> str:
        """Return bucket and key."""
        return f"s3://{self.name}/{self.prefix}{path}"

    def put(self, path: str, data: bytes | bytearray) -> None:
        """Write a whole object in one request."""
        self._call(path, lambda key: obstore.put(self._objects, key, data, use_multipart=False))

    def get(self, path: str) -> bytes | None:
        """Return a small object, None when it is not there."""
        return self._found(path, lambda key: bytes(obstore.get(self._objects, key).bytes()))

    def head(self, path: str) -> Stored | None:
        """Return what an object is, None when it is not there."""
        return self._found(path, lambda key: self._stored(obstore.head(self._objects, key)))

    def list(self, folder: str) -> list[Stored]:
        """Return every object in the folder and below it."""
        return self._call(
            folder,
            lambda key: [
                self._stored(meta) for page in obstore.list(self._objects, key) for meta in page
            ],
        )

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects, many with one request."""
        if paths:
            keys = [self.prefix + path for path in paths]
            self._call(paths[0], lambda _: obstore.delete(self._objects, keys))

    def _stored(self, meta: obstore.ObjectMeta) -> Stored:
        path = meta["path"].removeprefix(self.prefix)
        return Stored(path, meta["size"], meta["last_modified"].timestamp(), meta["e_tag"])

    def _found(self, path: str, request: Callable[[str], T]) -> T | None:
        try:
            return self._call(path, request)
        except SnapshotError as error:
            if error.reason == "NotFound":
                return None
            raise

    def _call(self, path: str, request: Callable[[str], T]) -> T:
        try:
            return request(self.prefix + path)
        except SnapshotError:
            raise
        except Exception as error:
            raise buckets.translate(error, self.describe(path)) from None
