"""Bytes from a client -> whole requests, or the sentence that says why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httptools

from glowplug.gateway.proxy.wire import Headers, Request, WireLimits


@dataclass(frozen=True, slots=True)
class Rejected:
    """The last thing a connection is answered: why its bytes are not taken."""

    status: int
    message: str


class Intake:
    """Parses one connection. Everything after a rejection or a `Connection: close` is ignored.

    on_item receives each Request or Rejected in order; on_continue is called when a client waits
    for `100 Continue` before it sends its body.
    """

    def __init__(
        self,
        limits: WireLimits,
        clock: Callable[[], float],
        on_item: Callable[[Request | Rejected], None],
        on_continue: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._on_item = on_item
        self._on_continue = on_continue
        self._parser = httptools.HttpRequestParser(self)
        self._deaf = False
        self._resuming = False
        self.in_head = False
        self.in_message = False
        self._fresh = False
        self._overhead = 0
        self._reset()

    def _reset(self) -> None:
        self.began = 0.0  # when the current message's first byte came
        self._method = b""
        self._target = b""
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._size = 0
        self._http11 = True
        self._keep_alive = True

    def feed(self, data: bytes) -> None:
        """Take bytes as they came from the socket."""
        while data and not self._deaf:
            self._fresh = False
            before = self._size
            try:
                self._parser.feed_data(data)
                rest = b""
            except httptools.HttpParserUpgrade as upgrade:
                rest = self._decline_upgrade(data[upgrade.args[0] :])
            except httptools.HttpParserCallbackError as error:
                raise error.__context__ or error from error
            except httptools.HttpParserError as error:
                self._reject(400, f"The request is not valid HTTP: {error}.")
                return
            if self.in_message and not self._fresh:
                self._count_overhead(len(data) - (self._size - before))
            data = rest

    def _decline_upgrade(self, rest: bytes) -> bytes:
        # The parser takes what follows `Upgrade` for another protocol; to us it is the body, or
        # the next request. A new parser starts inside this message, from its framing fields.
        framing = [
            b"%b: %b\r\n" % (name, value)
            for name, value in self._headers
            if name in (b"content-length", b"transfer-encoding")
        ]
        self._parser = httptools.HttpRequestParser(self)
        if not self._resuming:
            return rest
        return b"%b / HTTP/1.1\r\n%b\r\n%b" % (self._method, b"".join(framing), rest)

    def _count_overhead(self, more: int) -> None:
        # What the parser buffers without telling: an endless header, extension or trailer.
        self._overhead += more
        if self.in_head and self._overhead > self._limits.head_bytes:
            self._reject(431, f"The request head exceeds {self._limits.head_bytes} bytes.")
        elif self._overhead > self._limits.head_bytes + self._limits.framing_bytes:
            self._reject(400, "The request's chunk framing is far larger than it needs to be.")

    def _reject(self, status: int, message: str) -> None:
        if not self._deaf:
            self._deaf = True
            self.in_message = self.in_head = False
            self._on_item(Rejected(status, message))

    # What httptools calls, in this order.

    def on_message_begin(self) -> None:
        """A request's first byte is here."""
        if self._resuming:
            return
        self._reset()
        self.began = self._clock()
        self._fresh = True
        self._overhead = 0
        self.in_message = self.in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        if not self._resuming:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; trailers come here too and are dropped."""
        if self.in_head and not self._resuming:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._resuming or self._deaf:
            return
        self.in_head = False
        self._method = self._parser.get_method()
        self._http11 = self._parser.get_http_version() != "1.0"
        self._keep_alive = self._parser.should_keep_alive()
        expect = None
        for name, value in self._headers:
            if name == b"content-length" and int(value) > self._limits.body_bytes:
                self._reject(413, self._too_large())
                return
            if name == b"expect":
                expect = value
        if expect is not None and expect.lower() != b"100-continue":
            self._reject(417, "The only expectation understood is 100-continue.")
        elif expect is not None and self._http11:
            self._on_continue()

    def on_body(self, data: bytes) -> None:
        """A piece of the body, without its framing."""
        self._size += len(data)
        if self._deaf:
            return
        if self._size > self._limits.body_bytes:
            self._body.clear()
            self._reject(413, self._too_large())
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._deaf:
            return
        if self._parser.should_upgrade() and not self._resuming and self._has_body():
            self._resuming = True
            return
        self._resuming = False
        self.in_message = self.in_head = False
        self._deaf = not self._keep_alive
        self._on_item(
            Request(
                method=self._method,
                target=self._target,
                headers=self._headers,
                body=b"".join(self._body),
                http11=self._http11,
                keep_alive=self._keep_alive,
                received=self.began,
            )
        )

    def _has_body(self) -> bool:
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self._headers)

    def _too_large(self) -> str:
        return (
            f"The request body exceeds {self._limits.body_bytes} bytes, "
            "the limit of this gateway; send a smaller one."
        )
