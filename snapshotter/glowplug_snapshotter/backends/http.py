"""Plain HTTP: ranged GETs received straight into the caller's buffer over kept connections."""

from __future__ import annotations

import re
from contextlib import nullcontext
from urllib.parse import quote, urljoin, urlsplit

from glowplug_snapshotter.backends import Entry, Ticket
from glowplug_snapshotter.backends.wire import Connection, Pool, Response
from glowplug_snapshotter.errors import SnapshotError, TransientError

REDIRECTS = 5
OK, PARTIAL = 200, 206
# What stores say of a signature or token that was good: the next request is signed anew.
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")


class HttpReader:
    """Objects below a base URL. Subclasses say how a path becomes a URL and what to list."""

    streams = 4

    def __init__(self, base: str, headers: dict[str, str] | None = None) -> None:
        self._base = base.rstrip("/")
        self._headers = {"User-Agent": "glowplug-snapshotter", **(headers or {})}
        self._pool = Pool()
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

    def close(self) -> None:
        """Close idle connections."""
        self._pool.close()

    def url_for(self, path: str) -> str:
        """Return the address to ask for an object."""
        return f"{self._base}/{quote(path)}"

    def headers_for(self, url: str) -> dict[str, str]:
        """Return what every request to this address on the own server carries."""
        return self._headers

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small object whole."""
        response = self._get(path, {})
        try:
            data = response.read(limit + 1)
            if response.length is not None and len(data) < min(limit + 1, response.length):
                raise ConnectionError("the connection was cut")
        except (OSError, ValueError) as error:
            response.close()
            raise self._broken(path, error) from None
        if len(data) > limit:
            response.close()
            raise SnapshotError("Unsupported", f"{self.describe(path)} is over {limit} bytes.")
        response.finish()
        return data

    def read_into(
        self, entry: Entry, offset: int, view: memoryview, ticket: Ticket | None = None
    ) -> None:
        """Fill `view` by one ranged GET, which must answer for the pinned object only."""
        headers = {"Range": f"bytes={offset}-{offset + len(view) - 1}"}
        if entry.validator is not None:
            headers["If-Match"] = entry.validator
        response = self._get(entry.path, headers, ticket)
        whole = False
        try:
            self._check(response, entry, offset, len(view))
            with ticket.interruptible(response.interrupt) if ticket else nullcontext():
                self._receive(response, entry.path, view)
            whole = True
        except (OSError, ValueError) as error:
            raise self._broken(entry.path, error) from None
        finally:
            if whole:
                response.finish()
            else:
                response.close()

    def _check(self, response: Response, entry: Entry, offset: int, length: int) -> None:
        where = self.describe(entry.path)
        etag = response.headers.get("etag")
        if entry.validator is not None and etag != entry.validator:
            if etag is None:
                raise TransientError(f"{where} was answered without the ETag that pins it.")
            raise SnapshotError("SourceChanged", f"{where} was replaced while it was read.")
        if response.status == OK:
            total = entry.size if response.length is None else response.length
            first, last = 0, total - 1
        else:
            found = re.fullmatch(
                r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("content-range", "")
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
        if response.length is not None and response.length > length:
            raise TransientError(f"{where} sent more bytes than asked.")

    def _receive(self, response: Response, path: str, view: memoryview) -> None:
        done = 0
        while done < len(view):
            count = response.readinto(view[done:])
            if not count:
                raise TransientError(f"{self.describe(path)} was cut after {done} bytes.")
            done += count
        if response.read(1):
            raise TransientError(f"{self.describe(path)} sent more bytes than asked.")

    def _get(self, path: str, headers: dict[str, str], ticket: Ticket | None = None) -> Response:
        """Ask, following redirects; the answer is 200 or 206 and must be finished or closed."""
        origin = self.url_for(path)
        url = self._redirected.get(path, origin)
        for _ in range(REDIRECTS + 1):
            own = self._own_headers(url, origin)
            response = self._send(url, {**own, **headers}, path, ticket)
            if response.status not in (301, 302, 303, 307, 308):
                break
            url = urljoin(url, response.headers.get("location", ""))
            response.close()
        if response.status not in (OK, PARTIAL):
            error = self._refused(response, path)
            if self._redirected.pop(path, None) is not None and error.reason == "Forbidden":
                raise TransientError(error.message)  # the signed redirect ran out: ask again
            raise error
        if url != origin:
            self._redirected[path] = url
        return response

    def _own_headers(self, url: str, origin: str) -> dict[str, str]:
        if urlsplit(url).netloc == urlsplit(origin).netloc:
            return self.headers_for(url)
        return {"User-Agent": self._headers["User-Agent"]}

    def _send(
        self, url: str, headers: dict[str, str], path: str, ticket: Ticket | None
    ) -> Response:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise self._broken(path, ValueError("it redirects to no address"))
        while True:
            connection: Connection | None = None
            used = False
            try:
                connection, used = self._pool.take(parts.scheme, parts.netloc)
                with ticket.interruptible(connection.interrupt) if ticket else nullcontext():
                    response = connection.get(target, headers)
                if ticket is not None:
                    ticket.answered()
                return response
            except (OSError, ValueError) as error:
                if connection is not None:
                    connection.close()
                stale = used and isinstance(error, ConnectionError)
                if not stale or (ticket is not None and ticket.given_up):
                    raise self._broken(path, error) from None

    def _broken(self, path: str, error: Exception) -> TransientError:
        text = str(error) or type(error).__name__
        return TransientError(f"{self.describe(path)} could not be read: {text}.")

    def _refused(self, response: Response, path: str) -> SnapshotError:
        code = _error_code(response)
        response.close()
        return refusal(response.status, self.describe(path), code)


def refusal(status: int, where: str, code: str = "") -> SnapshotError:
    """Turn an HTTP status into the error it means; `code` is the store's own word for it."""
    said = f"{status} {code}".strip()
    if code in EXPIRED:
        return TransientError(
            f"Access to {where} was refused ({said}): "
            "the credentials ran out and were not renewed; put new ones into the Secret.",
            reason="Forbidden",
        )
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
        throttled = status in (429, 503)
        return TransientError(f"{where} could not be read ({said}).", throttled=throttled)
    return SnapshotError("Unavailable", f"{where} was answered with {said}.")


def _error_code(response: Response) -> str:
    try:
        body = response.read(4096)
    except (OSError, ValueError):
        return ""
    found = re.search(rb"<Code>(\w{1,64})</Code>", body)
    return found.group(1).decode() if found else ""
