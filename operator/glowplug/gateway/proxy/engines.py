"""The side that faces engines: pooled connections, one request at a time on each."""

from __future__ import annotations

import asyncio
from collections import defaultdict
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

    def __init__(self, pool: EnginePool, address: Address) -> None:
        self.address = address
        self.idle_since = 0.0
        self.reusable = True
        self.answered = False  # any byte of an answer to the current request
        self._pool = pool
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
        notice_vanished_peers(transport.get_extra_info("socket"), idle=10)

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
            if self._head_bytes > self._pool.limits.head_bytes:
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
        self._pool.forget(self)

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


class EnginePool:
    """Connections by address: the most recently used idle one first."""

    def __init__(self, limits: WireLimits | None = None) -> None:
        self.limits = limits or WireLimits()
        self._idle: defaultdict[Address, list[EngineConnection]] = defaultdict(list)
        self._busy: defaultdict[Address, set[EngineConnection]] = defaultdict(set)
        self._sweep: asyncio.TimerHandle | None = None

    async def exchange(self, address: Address, request: bytes, sink: Sink) -> None:
        """One request and its answer. Raises EngineGone.

        A pooled connection that turns out to be dead is replaced by a new one first.
        """
        sent = False
        connection = self._take_idle(address)
        if connection is not None:
            try:
                await self._use(connection, request, sink)
                return
            except EngineGone:
                if connection.answered:
                    raise
                sent = True
        await self._use(await self._connect(address, sent), request, sink)

    def idle(self, address: Address) -> int:
        """How many connections are pooled for an address."""
        return len(self._idle.get(address, ()))

    def close_idle(self, address: Address) -> None:
        """Close what is pooled for an address that gets nothing new."""
        for connection in self._idle.pop(address, ()):
            connection.close()

    def abort(self, address: Address) -> None:
        """Reset all connections to an engine known to be gone."""
        self.close_idle(address)
        for connection in list(self._busy.get(address, ())):
            connection.abort()

    def close(self) -> None:
        """Reset everything."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for address in [*self._idle, *self._busy]:
            self.abort(address)

    def forget(self, connection: EngineConnection) -> None:
        """Called by a connection that is over."""
        idle = self._idle.get(connection.address)
        if idle and connection in idle:
            idle.remove(connection)

    def _take_idle(self, address: Address) -> EngineConnection | None:
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connect(self, address: Address, sent: bool) -> EngineConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: EngineConnection(self, address), *address
                )
        except TimeoutError:
            raise EngineGone("it did not accept a connection in time", sent=sent) from None
        except OSError as error:
            raise EngineGone(f"it could not be reached: {error.strerror}", sent=sent) from None
        return connection

    async def _use(self, connection: EngineConnection, request: bytes, sink: Sink) -> None:
        busy = self._busy[connection.address]
        busy.add(connection)
        try:
            await connection.exchange(request, sink)
        finally:
            busy.discard(connection)
            if not busy:
                self._busy.pop(connection.address, None)
        if connection.reusable:
            self._keep(connection)
        else:
            connection.close()

    def _keep(self, connection: EngineConnection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle[connection.address].append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(self.limits.engine_idle / 4, self._close_stale)

    def _close_stale(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self.limits.engine_idle
        for address, idle in list(self._idle.items()):
            for connection in [c for c in idle if c.idle_since <= oldest]:
                idle.remove(connection)
                connection.close()
            if not idle:
                del self._idle[address]
        again = bool(self._idle)
        self._sweep = (
            loop.call_later(self.limits.engine_idle / 4, self._close_stale) if again else None
        )
