"""Plain HTTP: ranged GETs received straight into the caller's buffer over kept connections."""

from __future__ import annotations

import http.client
import re
import ssl
import threading
from urllib.parse import quote, urljoin, urlsplit

from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.errors import SnapshotError, TransientError

TIMEOUT = 30.0  # s without a byte
REDIRECTS = 5
OK, PARTIAL = 200, 206


class HttpReader:
    """Objects below a base URL. Subclasses say how a path becomes a URL and what to list."""

    streams = 4

    def __init__(self, base: str, headers: dict[str, str] | None = None) -> None:
        self._base = base.rstrip("/")
        self._headers = {"User-Agent": "glowplug-snapshotter", **(headers or {})}
        self._connections = threading.local()
        self._redirected: dict[str, str] = {}  # path -> where the last redirect led

    def describe(self, path: str) -> str:
        """Return the address without its query, which may be a signature."""
        return f"{self._base}/{path}"

    def revision(self) -> str | None:
        """Return None: a base URL has no revisions."""
        return None

    def entries(self) -> list[Entry]:
        """Refuse: HTTP has no listing; sources that know their files override this."""
        raise SnapshotError("Unsupported", f"{self._base} cannot be listed.")

    def url_for(self, path: str) -> str:
        """Return the address to ask for an object."""
        return f"{self._base}/{quote(path)}"

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small object whole."""
        response = self._get(path, {})
        try:
            data = response.read(limit + 1)
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(path, error) from None
        if len(data) > limit:
            self._forget()
            raise SnapshotError("Unsupported", f"{self.describe(path)} is over {limit} bytes.")
        response.read()
        return data

    def read_into(self, entry: Entry, offset: int, view: memoryview) -> None:
        """Fill `view` by one ranged GET, which must answer for the pinned object only."""
        headers = {"Range": f"bytes={offset}-{offset + len(view) - 1}"}
        if entry.validator is not None:
            headers["If-Match"] = entry.validator
        response = self._get(entry.path, headers)
        try:
            self._check(response, entry, offset, len(view))
            self._receive(response, entry.path, view)
        except SnapshotError:
            self._forget()
            raise
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(entry.path, error) from None

    def _check(
        self, response: http.client.HTTPResponse, entry: Entry, offset: int, length: int
    ) -> None:
        where = self.describe(entry.path)
        etag = response.headers.get("ETag")
        if entry.validator is not None and etag is not None and etag != entry.validator:
            raise SnapshotError("SourceChanged", f"{where} was replaced while it was read.")
        if response.status == OK:
            total = entry.size if response.length is None else response.length
            first, last = 0, total - 1
        else:
            found = re.fullmatch(
                r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", "")
            )
            if found is None:
                raise TransientError(f"{where} was answered without a usable Content-Range.")
            first, last, total = (int(group) for group in found.groups())
        if total != entry.size:
            raise SnapshotError(
                "SourceChanged", f"{where} has {total} bytes where {entry.size} were expected."
            )
        if response.status == OK and (first, last) != (offset, offset + length - 1):
            raise SnapshotError("Unsupported", f"{where}: the server answers no byte ranges.")
        if (first, last) != (offset, offset + length - 1):
            raise TransientError(f"{where} was answered with another range than asked.")

    def _receive(self, response: http.client.HTTPResponse, path: str, view: memoryview) -> None:
        done = 0
        while done < len(view):
            count = response.readinto(view[done:])
            if not count:
                raise TransientError(f"{self.describe(path)} was cut after {done} bytes.")
            done += count
        if response.read(1):
            raise TransientError(f"{self.describe(path)} sent more bytes than asked.")

    def _get(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        origin = self.url_for(path)
        url = self._redirected.get(path, origin)
        for _ in range(REDIRECTS + 1):
            response = self._send(url, {**self._headers_for(url, origin), **headers}, path)
            if response.status not in (301, 302, 303, 307, 308):
                break
            url = urljoin(url, response.headers.get("Location", ""))
            response.read()
        if response.status not in (OK, PARTIAL):
            error = self._refused(response, path)
            if self._redirected.pop(path, None) is not None and error.reason == "Forbidden":
                raise TransientError(error.message)  # the signed redirect ran out: ask again
            raise error
        if url != origin:
            self._redirected[path] = url
        return response

    def _headers_for(self, url: str, origin: str) -> dict[str, str]:
        if urlsplit(url).netloc == urlsplit(origin).netloc:
            return self._headers
        return {k: v for k, v in self._headers.items() if k != "Authorization"}

    def _send(self, url: str, headers: dict[str, str], path: str) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        try:
            connection = self._connection(parts.scheme, parts.netloc)
            connection.request("GET", target or "/", headers=headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(path, error) from None

    def _connection(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        kept: dict[tuple[str, str], http.client.HTTPConnection]
        kept = self._connections.__dict__.setdefault("kept", {})
        connection = kept.get((scheme, netloc))
        if connection is None:
            if scheme == "https":
                connection = http.client.HTTPSConnection(
                    netloc, timeout=TIMEOUT, context=ssl.create_default_context()
                )
            else:
                connection = http.client.HTTPConnection(netloc, timeout=TIMEOUT)
            kept[scheme, netloc] = connection
        return connection

    def _forget(self) -> None:
        """Close this thread's connections: what is left on them belongs to no request."""
        for connection in self._connections.__dict__.get("kept", {}).values():
            connection.close()

    def _broken(self, path: str, error: Exception) -> TransientError:
        self._forget()
        text = str(error) or type(error).__name__
        return TransientError(f"{self.describe(path)} could not be read: {text}.")

    def _refused(self, response: http.client.HTTPResponse, path: str) -> SnapshotError:
        code = _error_code(response)
        self._forget()
        return refusal(response.status, self.describe(path), code)


def refusal(status: int, where: str, code: str = "") -> SnapshotError:
    """Turn an HTTP status into the error it means; `code` is the store's own word for it."""
    said = f"{status} {code}".strip()
    if status in (404, 410):
        return SnapshotError("NotFound", f"{where} does not exist ({said}).")
    if status in (401, 403):
        return SnapshotError(
            "Forbidden",
            f"Access to {where} was refused ({said}): "
            "check the credentials in the Secret and what they may read.",
        )
    if status in (412, 416):
        return SnapshotError("SourceChanged", f"{where} was replaced while it was read ({said}).")
    if status in (408, 425, 429) or status >= 500:
        return TransientError(f"{where} could not be read ({said}).")
    return SnapshotError("Unavailable", f"{where} was answered with {said}.")


def _error_code(response: http.client.HTTPResponse) -> str:
    try:
        body = response.read(4096)
    except (OSError, http.client.HTTPException):
        return ""
    found = re.search(rb"<Code>(\w{1,64})</Code>", body)
    return found.group(1).decode() if found else ""
