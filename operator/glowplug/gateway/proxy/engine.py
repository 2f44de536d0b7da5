"""One connection to an engine: a request goes out, its answer comes back into a Sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import httptools

from glowplug.gateway.proxy.reply import Source
from glowplug.gateway.proxy.wire import (
    Address,
    Headers,
    WireLimits,
    has_body,
    notice_vanished_peers,
)


class Sink(Protocol):
    """Receives one engine's answer as it comes."""

    def on_source(self, source: Source | None) -> None:
        """The connection that the answer comes from, None once it is over."""

    def on_head(self, status: int, headers: Headers, *, unframed: bool) -> None:
        """The final head. unframed: only the connection's end will end the body."""

    def on_data(self, data: bytes) -> None:
        """A piece of the body, without its framing."""


class EngineGone(Exception):  # noqa: N818
    """The engine could not be reached or ended before its answer did.

    sent: whether it may have seen the request.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class EngineConnection(asyncio.Protocol):
    """One connection to an engine."""

    def __init__(
        self, address: Address, limits: WireLimits, on_lost: Callable[[EngineConnection], None]
    ) -> None:
        self.address = address
        self.idle_since = 0.0
        self.reusable = True
        self.answered = False  # any byte of an answer to the current request
        self._limits = limits
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._sink: Sink | None = None
        self._done: asyncio.Future[None] | None = None
        self._headers: Headers = []
        self._head_bytes = 0
        self._in_head = True
        self._unframed = False
        self._keep_alive = True

    async def exchange(self, request: bytes, sink: Sink) -> None:
        """Send one request, feed `sink` with its answer. Raises EngineGone."""
        if self._transport is None or self._transport.is_closing():
            raise EngineGone("the connection was closed", sent=True)
        self._sink = sink
        self._done = asyncio.get_running_loop().create_future()
        self.answered = False
        self._expect_head()
        sink.on_source(self)
        self._transport.write(request)
        try:
            await self._done
        except BaseException:
            self.abort()  # also tells the engine that nobody waits any more
            raise
        finally:
            sink.on_source(None)
            self.resume()
            self._sink = self._done = None

    def pause(self) -> None:
        """Read no further for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close an idle connection."""
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def _expect_head(self) -> None:
        self._headers = []
        self._head_bytes = 0
        self._in_head = True

    def _fail(self, reason: str) -> None:
        self.reusable = False
        if self._done is not None and not self._done.done():
            self._done.set_exception(EngineGone(reason, sent=True))

    def _complete(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        notice_vanished_peers(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Bytes from the engine."""
        if self._done is None or self._done.done():
            self.abort()  # it speaks without being asked: nothing after this can be trusted
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("it tried to switch protocols")
        except httptools.HttpParserCallbackError as error:
            self._done.set_exception(error.__context__ or error)
        except httptools.HttpParserError as error:
            self._fail(f"its answer is not valid HTTP: {error}")
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes:
                self._fail("its answer's head is too large")

    def eof_received(self) -> bool:
        """The engine sends no more."""
        if self._unframed and not self._in_head:
            self._complete()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over."""
        self._transport = None
        self._fail(str(exc) if exc else "it closed the connection before its answer was whole")
        self._on_lost(self)

    # What httptools calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; trailers are dropped."""
        if self._in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """A head is whole."""
        status: int = self._parser.get_status_code()
        if 100 <= status < 200:
            self._headers = []  # an interim answer; the real one follows
            return
        if self._sink is None or (self._done is not None and self._done.done()):
            return
        self._in_head = False
        self._keep_alive = self._parser.should_keep_alive()
        framed = {b"content-length", b"transfer-encoding"}
        self._unframed = has_body(status) and not any(n in framed for n, _ in self._headers)
        self._sink.on_head(status, self._headers, unframed=self._unframed)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._sink is not None and self._done is not None and not self._done.done():
            self._sink.on_data(data)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._in_head:
            return  # an interim answer
        self.reusable = self.reusable and self._keep_alive
        self._complete()
