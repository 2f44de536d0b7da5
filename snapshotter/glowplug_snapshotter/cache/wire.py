"""A small HTTP client for peers: ranged GETs received straight into a buffer, and cancellable.

The readers of `backends` block a thread until their timeout; a slow peer must cost no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket

HEAD_LIMIT = 16 * 1024
KEPT = 4  # idle connections to one peer
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,18})\r\n", re.IGNORECASE)


class PeerError(Exception):
    """A peer did not give what it was asked for. `status` is its answer, 0 without one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Wire:
    """Connections to peers by address, `host:port`. Every wait for a byte is bounded by `stall`."""

    def __init__(self, stall: float = 10.0, connect: float = 1.0) -> None:
        self._stall = stall
        self._connect_timeout = connect
        self._idle: dict[str, list[socket.socket]] = {}

    async def get(self, address: str, target: str, limit: int) -> bytes:
        """Return a body of at most `limit` bytes; raises PeerError for anything but 200."""
        body, length = bytearray(), 0
        async with _Lent(self, address) as sock:
            status, length, rest = await self._ask(sock, address, target)
            if length > limit:
                raise PeerError(f"{address} sends {length} bytes")
            body += rest
            buffer = memoryview(bytearray(64 * 1024))
            while len(body) < length:
                count = await self._receive(sock, buffer[: length - len(body)])
                body += buffer[:count]
            if status != 200:
                raise PeerError(f"{address} answered {status}", status)
        return bytes(body)

    async def read_into(self, address: str, target: str, offset: int, view: memoryview) -> None:
        """Fill `view` by one ranged GET; raises PeerError."""
        ranged = f"Range: bytes={offset}-{offset + len(view) - 1}\r\n"
        async with _Lent(self, address) as sock:
            status, length, rest = await self._ask(sock, address, target, ranged)
            if status != 206 or length != len(view) or len(rest) > len(view):
                raise PeerError(f"{address} answered {status} with {length} bytes", status)
            view[: len(rest)] = rest
            done = len(rest)
            while done < len(view):
                done += await self._receive(sock, view[done:])

    def close(self) -> None:
        """Close what is idle."""
        for kept in self._idle.values():
            for sock in kept:
                sock.close()
        self._idle.clear()

    async def connect(self, address: str) -> socket.socket:
        """Return a connection, an idle one if there is one that still lives."""
        kept = self._idle.get(address, [])
        while kept:
            sock = kept.pop()
            if _is_quiet(sock):
                return sock
            sock.close()
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(self._connect_timeout):
                await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        except BaseException:
            sock.close()
            raise
        return sock

    def keep(self, address: str, sock: socket.socket) -> None:
        """Keep a connection on which nothing is under way."""
        kept = self._idle.setdefault(address, [])
        if len(kept) < KEPT:
            kept.append(sock)
        else:
            sock.close()

    async def _ask(
        self, sock: socket.socket, address: str, target: str, more: str = ""
    ) -> tuple[int, int, bytes]:
        """Send a request; return status, length of the body and what of it came with the head."""
        request = f"GET {target} HTTP/1.1\r\nHost: {address}\r\n{more}\r\n"
        async with asyncio.timeout(self._stall):
            await asyncio.get_running_loop().sock_sendall(sock, request.encode())
        head = bytearray()
        buffer = memoryview(bytearray(HEAD_LIMIT))
        while (end := head.find(b"\r\n\r\n")) < 0:
            if len(head) > HEAD_LIMIT:
                raise PeerError(f"{address} sends an endless head")
            count = await self._receive(sock, buffer)
            head += buffer[:count]
        status, length = _STATUS.match(head), _LENGTH.search(head[: end + 2])
        if status is None or length is None:
            raise PeerError(f"{address} does not speak HTTP/1.1")
        return int(status[1]), int(length[1]), bytes(head[end + 4 :])

    async def _receive(self, sock: socket.socket, view: memoryview) -> int:
        async with asyncio.timeout(self._stall):
            count = await asyncio.get_running_loop().sock_recv_into(sock, view)
        if not count:
            raise PeerError("the connection was closed")
        return count


class _Lent:
    """A connection for one request, kept only if the request ended well."""

    def __init__(self, wire: Wire, address: str) -> None:
        self._wire = wire
        self._address = address

    async def __aenter__(self) -> socket.socket:
        try:
            self._sock = await self._wire.connect(self._address)
        except (OSError, ValueError, TimeoutError) as error:
            raise PeerError(f"{self._address} cannot be reached: {error!r}") from None
        return self._sock

    async def __aexit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        if kind is None:
            self._wire.keep(self._address, self._sock)
            return
        self._sock.close()
        if issubclass(kind, OSError):  # TimeoutError is one
            raise PeerError(f"{self._address} was lost: {error!r}") from None


def _is_quiet(sock: socket.socket) -> bool:
    """Whether an idle connection is still open, with nothing left over on it."""
    with contextlib.suppress(BlockingIOError):
        sock.recv(1, socket.MSG_PEEK)
        return False
    return True
