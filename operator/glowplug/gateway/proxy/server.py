"""The side that faces clients: connections, pipelining, timeouts, leaving clients."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import ssl
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from glowplug.gateway.proxy.intake import Intake, Rejected
from glowplug.gateway.proxy.reply import Reply
from glowplug.gateway.proxy.wire import Headers, Request, WireLimits, notice_vanished_peers

logger = logging.getLogger(__name__)

Handler = Callable[[Request, Reply], Coroutine[Any, Any, None]]
Rejection = Callable[[int, str], tuple[Headers, bytes]]  # status, message -> head and body


class ClientConnection(asyncio.Protocol):
    """One client. Requests are answered in order, one at a time, each in its own task.

    The task is cancelled as soon as the client leaves. A client that closes its sending side
    counts as gone, as it does to most servers.
    """

    def __init__(self, server: ProxyServer) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = asyncio.get_running_loop()
        self._intake = Intake(self._limits, self._loop.time, self._on_item, self._on_continue)
        self._waiting: deque[Request | Rejected] = deque()
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._task: asyncio.Task[None] | None = None
        self._owes_continue = False
        self._reading = True
        self._lingering = False
        self._last_byte = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        notice_vanished_peers(transport.get_extra_info("socket"))
        self._server.arrive(self)
        self._watch_time()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._last_byte = self._loop.time()
        if not self._lingering:
            self._intake.feed(data)

    def eof_received(self) -> bool:
        """The client sends no more: it has left."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is over, whoever ended it."""
        self._transport = None
        self._waiting.clear()
        self._server.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._reply is not None:
            self._reply.gone()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client reads more slowly than the engine writes."""
        if self._reply is not None:
            self._reply.throttle(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._reply is not None:
            self._reply.throttle(False)

    # What a Reply calls.

    def write(self, data: bytes) -> None:
        """Send bytes, or drop them when nobody is there."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close once everything written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()

    def take_leave(self) -> None:
        """The server stops: say so in what is not answered yet, and rest no longer than needed."""
        if self._reply is not None and not self._reply.status:
            self._reply.keep_alive = False
        self._rearm()

    # Requests in order.

    def _on_item(self, item: Request | Rejected) -> None:
        self._owes_continue = False
        self._waiting.append(item)
        if self._task is None:
            self._next()
        elif len(self._waiting) >= self._limits.pipelined:
            self._read(False)

    def _on_continue(self) -> None:
        if self._task is None:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        else:
            self._owes_continue = True  # not in the middle of another answer

    def _next(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if not self._waiting:
            self._read(True)
            if self._owes_continue:
                self._owes_continue = False
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if self._server.closing:
                self._rearm()
            return
        item = self._waiting.popleft()
        if isinstance(item, Rejected):
            self._refuse(item)
            return
        keep_alive = item.keep_alive and not self._server.closing
        self._reply = Reply(self, http11=item.http11, keep_alive=keep_alive)
        self._task = self._loop.create_task(self._answer(item, self._reply))
        self._task.add_done_callback(self._answered)

    async def _answer(self, request: Request, reply: Reply) -> None:
        try:
            await self._server.handler(request, reply)
        except Exception:
            logger.exception("a request could not be handled")
        finally:
            if not reply.ended:
                reply.abort()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._task = self._reply = None
        self._last_byte = self._loop.time()
        self._next()

    def _refuse(self, rejected: Rejected) -> None:
        reply = Reply(self, http11=True, keep_alive=True)
        headers, body = self._server.rejection(rejected.status, rejected.message)
        reply.send(rejected.status, [*headers, (b"connection", b"close")], body)
        # A close with unread bytes would reset the connection and take the answer with it.
        self._lingering = True
        self._read(True)
        if self._transport is not None:
            if self._transport.can_write_eof():  # TLS has no half-closed connections
                self._transport.write_eof()
            self._loop.call_later(self._limits.linger, self.abort)

    def _read(self, on: bool) -> None:
        if on != self._reading and self._transport is not None:
            self._reading = on
            if on:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # Time.

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._watch_time()

    def _watch_time(self) -> None:
        # One timer a connection, looked at now and then: no cost per request.
        left = self._deadline() - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(
                min(left, self._limits.head_timeout), self._watch_time
            )
        elif self._intake.in_message and not self._lingering:
            self._refuse(Rejected(408, "The request did not arrive in time."))
        elif not self._lingering:
            self.close()

    def _deadline(self) -> float:
        if self._task is not None:
            return math.inf
        if self._intake.in_head:
            return self._intake.began + self._limits.head_timeout
        if self._intake.in_message:
            return self._last_byte + self._limits.stall_timeout
        closing = self._server.closing
        return self._last_byte + (self._limits.farewell if closing else self._limits.idle_timeout)


class ProxyServer:
    """Listens for clients and gives each request to `handler`.

    rejection: writes the answer to bytes that are no valid request.
    """

    def __init__(
        self, handler: Handler, rejection: Rejection, limits: WireLimits | None = None
    ) -> None:
        self.handler = handler
        self.rejection = rejection
        self.limits = limits or WireLimits()
        self.connections: set[ClientConnection] = set()
        self.closing = False
        self._last_arrival = 0.0
        self._empty = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(
        self, host: str | None, port: int, context: ssl.SSLContext | None = None
    ) -> int:
        """Listen, for TLS with a context; returns the port, which the kernel picks for 0."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: ClientConnection(self),
            host,
            port,
            backlog=4096,
            ssl=context,
            ssl_handshake_timeout=self.limits.head_timeout if context else None,
            ssl_shutdown_timeout=self.limits.linger if context else None,
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop_accepting(self, longest: float) -> None:
        """Part from each client at the end of an answer, and close the port once nobody comes.

        Never between a request and our close: `Connection: close` tells the client, or its silence
        us. The port stays open while new connections come, up to `longest` s: some node's rules
        may lead here still.
        """
        self.closing = True
        for connection in list(self.connections):
            connection.take_leave()
        await self._until_nobody_comes(longest)
        if self._server is not None:
            self._server.close()

    async def _until_nobody_comes(self, longest: float) -> None:
        clock = asyncio.get_running_loop().time
        self._last_arrival = clock()
        end = self._last_arrival + longest
        while True:
            left = min(end, self._last_arrival + self.limits.farewell) - clock()
            if left <= 0:
                return
            await asyncio.sleep(left)

    def arrive(self, connection: ClientConnection) -> None:
        """Called by a connection that begins."""
        self.connections.add(connection)
        self._last_arrival = asyncio.get_running_loop().time()

    def leave(self, connection: ClientConnection) -> None:
        """Called by a connection that is over."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    async def drain(self, grace: float) -> bool:
        """Wait up to `grace` s for the last answer; False when there are more."""
        self._empty.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self.connections:
                    await self._empty.wait()
        return not self.connections

    def abort(self) -> None:
        """Reset what is left."""
        for connection in list(self.connections):
            connection.abort()
