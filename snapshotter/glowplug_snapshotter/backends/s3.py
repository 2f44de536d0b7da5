"""S3 over plain HTTP, signed with plain keys or not at all: no library is loaded for it.

Receiving into the caller's buffer costs half the CPU of copying out of obstore's stream, so where
there is no TLS to do, `HttpReader` moves the bytes. Only a listing needs obstore.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.backends.http import HttpReader
from glowplug_snapshotter.backends.sigv4 import Signer


class S3HttpReader(HttpReader):
    """Objects below a prefix of a bucket, addressed by path; `sign` None sends no credentials.

    `entries` lists the prefix.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        prefix: str,
        sign: Signer | None,
        entries: Callable[[], list[Entry]],
    ) -> None:
        super().__init__(f"{endpoint.rstrip('/')}/{quote(bucket)}")
        self._root = f"s3://{bucket}"
        self._prefix = f"{prefix}/" if prefix else ""
        self._sign = sign
        self._entries = entries

    def describe(self, path: str) -> str:
        """Return bucket and key."""
        return f"{self._root}/{self._prefix}{path}"

    def entries(self) -> list[Entry]:
        """Return what the bucket lists."""
        return self._entries()

    def url_for(self, path: str) -> str:
        """Return the object's address, encoded as its signature demands."""
        return f"{self._base}/{quote(self._prefix + path, safe='/~')}"

    def headers_for(self, url: str) -> dict[str, str]:
        """Return the signature of a request made now."""
        return self._headers if self._sign is None else {**self._headers, **self._sign(url)}
