"""The answer to one request, as its handler writes it; framing is decided here."""

from __future__ import annotations

from typing import Protocol

from glowplug.gateway.proxy.wire import Headers, has_body, response_head


class Outlet(Protocol):
    """The client's connection, as a Reply uses it."""

    def write(self, data: bytes) -> None: ...  # noqa: D102

    def close(self) -> None:  # noqa: D102
        ...

    def abort(self) -> None: ...  # noqa: D102


class Source(Protocol):
    """Where a body comes from; it is paused while the client reads too slowly."""

    def pause(self) -> None: ...  # noqa: D102

    def resume(self) -> None: ...  # noqa: D102


class Reply:
    """One response: `start`, `write` as often as needed, then `finish`, `cut` or `abort`.

    After the client has left all of them do nothing.
    """

    __slots__ = (
        "_chunked",
        "_left",
        "_outlet",
        "_paused",
        "_source",
        "ended",
        "http11",
        "keep_alive",
        "status",
        "whole",
    )

    def __init__(self, outlet: Outlet, *, http11: bool, keep_alive: bool) -> None:
        self._outlet = outlet
        self.http11 = http11
        self.keep_alive = keep_alive
        self.status = 0  # of the head that was sent; 0 before
        self.ended = False
        self.whole = False  # ended, and nothing is missing
        self._chunked = False
        self._left: int | None = None  # bytes still owed of a declared length
        self._source: Source | None = None
        self._paused = False

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Send the head. length: of the body, None when it is not known yet."""
        if self.ended:
            return
        self.status = status
        head = list(headers)
        self._left = length if has_body(status) else 0
        if has_body(status):
            if length is not None:
                head.append((b"content-length", b"%d" % length))
            elif self.http11:
                self._chunked = True
                head.append((b"transfer-encoding", b"chunked"))
            else:
                self.keep_alive = False  # only the end of the connection ends such a body
        if not self.keep_alive:
            head.append((b"connection", b"close"))
        elif not self.http11:
            head.append((b"connection", b"keep-alive"))
        self._outlet.write(response_head(status, head))

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self.ended or not data:
            return
        if self._left is not None:
            if len(data) > self._left:
                self.abort()
                return
            self._left -= len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._outlet.write(data)

    def finish(self) -> None:
        """End the answer as a whole one."""
        if self.ended:
            return
        if self._left:
            self.abort()  # less than promised is never made to look whole
            return
        self.ended = self.whole = True
        if self._chunked:
            self._outlet.write(b"0\r\n\r\n")
        if not self.keep_alive:
            self._outlet.close()

    def cut(self) -> None:
        """End what could not be finished: sent bytes arrive, and the framing stays broken off."""
        if not self.ended:
            self.ended = True
            self.keep_alive = False
            self._outlet.close()

    def abort(self) -> None:
        """Reset the connection at once."""
        if not self.ended:
            self.ended = True
            self.keep_alive = False
            self._outlet.abort()

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer in one go."""
        self.start(status, headers, len(body))
        self.write(body)
        self.finish()

    def draw_from(self, source: Source | None) -> None:
        """Name the source that has to wait while the client is slow."""
        self._source = source
        if source is not None and self._paused:
            source.pause()

    def throttle(self, paused: bool) -> None:
        """Called by the connection as its write buffer fills and empties."""
        self._paused = paused
        if self._source is not None:
            if paused:
                self._source.pause()
            else:
                self._source.resume()

    def gone(self) -> None:
        """Called by the connection when the client has left."""
        self.ended = True
        self._source = None
