"""HTTP/1.1 as far as ranged GETs need it, with bodies received straight into the caller's memory.

The standard library's client costs a third of a cold start's imports and a copy for small reads;
nothing else here knows sockets. Errors are OSError and ValueError (a malformed answer).
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

TIMEOUT = 30.0  # s without a byte
HEAD_LIMIT = 64 * 1024  # bytes
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: |$)")
LONGEST_NUMBER = 18  # digits of a length that is believed


class Response:
    """An answer whose head was read; its body is read by `readinto` and `read`."""

    def __init__(self, connection: Connection, head: bytes, body: bytes) -> None:
        self._connection = connection
        self._early = memoryview(body)  # came with the head
        lines = head.split(b"\r\n")
        found = STATUS_LINE.match(lines[0])
        if found is None:
            raise ValueError("the answer is not HTTP")
        self.status = int(found[2])
        self.headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise ValueError("the answer has a malformed header")
            self.headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        self.length = self._length()
        self._left = 0 if self._chunked else self.length  # of the body, or of the current chunk
        closing = "close" in self.headers.get("connection", "").lower()
        framed = self._chunked or self.length is not None
        self.reusable = found[1] == b"1" and framed and not closing
        self._ended = self._left == 0 and not self._chunked

    def readinto(self, view: memoryview) -> int:
        """Receive up to `len(view)` bytes of the body; 0 at its end."""
        if self._chunked and self._left == 0 and not self._ended:
            self._next_chunk()
        if self._ended or not view:
            return 0
        if self._left is not None:
            view = view[: self._left]
        count = self._receive(view)
        if count == 0:
            if self._left is not None:
                raise ConnectionError("the connection was cut")
            self._ended = True
        elif self._left is not None:
            self._left -= count
            self._ended = self._left == 0 and not self._chunked
        return count

    def read(self, limit: int) -> bytes:
        """Return the body, at most `limit` bytes of it."""
        pieces, buffer = [], memoryview(bytearray(min(limit, 1 << 16)))
        while limit and (count := self.readinto(buffer[:limit])):
            pieces.append(bytes(buffer[:count]))
            limit -= count
        return b"".join(pieces)

    def finish(self) -> None:
        """Keep the connection if the body was read whole, else close it."""
        if self._chunked and self._left == 0 and not self._ended and self.reusable:
            self._next_chunk()
        if not self._ended or self._early:
            self.reusable = False
        self._connection.finish(self.reusable)

    def interrupt(self) -> None:
        """Make a read that another thread is in end at once."""
        self._connection.interrupt()

    def close(self) -> None:
        """Drop what is left of the body, and the connection with it."""
        self._connection.close()

    def _length(self) -> int | None:
        if self.status in (204, 304):
            return 0
        text = self.headers.get("content-length")
        if text is None:
            return None
        if not text.isdecimal() or len(text) > LONGEST_NUMBER:
            raise ValueError("the answer has a malformed length")
        return int(text)

    def _receive(self, view: memoryview) -> int:
        if not self._early:
            return self._connection.receive(view)
        count = min(len(view), len(self._early))
        view[:count] = self._early[:count]
        self._early = self._early[count:]
        return count

    def _next_chunk(self) -> None:
        line = self._line()
        if line == b"":  # the end of the chunk before
            line = self._line()
        self._left = int(line.partition(b";")[0], 16)
        if self._left == 0:
            while self._line():
                pass
            self._ended = True

    def _line(self) -> bytes:
        line, byte = bytearray(), memoryview(bytearray(1))
        while not line.endswith(b"\r\n"):
            if len(line) > HEAD_LIMIT or not self._receive(byte):
                raise ValueError("the answer has a malformed chunk")
            line += byte
        return bytes(line[:-2])


class Connection:
    """One connection, used by one thread at a time."""

    def __init__(self, pool: Pool, scheme: str, netloc: str, default_port: int) -> None:
        self._pool = pool
        self.address = (scheme, netloc)
        host, _, port = netloc.rpartition(":")
        if not port.isdecimal():
            host, port = netloc, str(default_port)
        name = host.strip("[]")
        self._socket = socket.create_connection((name, int(port)), timeout=TIMEOUT)
        self._flags = 0
        if scheme == "https":
            self._socket = pool.tls().wrap_socket(self._socket, server_hostname=name)
        else:
            # The kernel fills the whole view in one call: a tenth less CPU than piece by piece.
            self._socket.settimeout(None)
            wait = struct.pack("ll", int(TIMEOUT), int(TIMEOUT % 1 * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
            self._flags = socket.MSG_WAITALL

    def get(self, target: str, headers: dict[str, str]) -> Response:
        """Ask, and return the answer once its head is there."""
        lines = [f"GET {target} HTTP/1.1", f"Host: {self.address[1]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        while True:
            head, body = self._head()
            response = Response(self, head, body)
            if response.status >= 200:
                return response

    def receive(self, view: memoryview) -> int:
        """Receive into `view`; 0 when the other side has closed."""
        try:
            return self._socket.recv_into(view, len(view), self._flags)
        except BlockingIOError:
            raise TimeoutError(f"no byte came for {TIMEOUT:.0f} s") from None

    def interrupt(self) -> None:
        """Make a `receive` that another thread is in return; the connection is lost."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def is_fresh(self) -> bool:
        """Say whether an idle connection still is one: open, and nothing unasked has come."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def finish(self, reusable: bool) -> None:
        """Go back to the pool, or close."""
        if reusable:
            self._pool.put(self)
        else:
            self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _head(self) -> tuple[bytes, bytes]:
        data, buffer = b"", memoryview(bytearray(4096))
        while b"\r\n\r\n" not in data:
            try:
                count = self._socket.recv_into(buffer)
            except BlockingIOError:
                raise TimeoutError(f"no answer came for {TIMEOUT:.0f} s") from None
            if count == 0:
                raise ConnectionResetError("the connection was closed before an answer")
            data += buffer[:count]
            if len(data) > HEAD_LIMIT:
                raise ValueError("the answer has too long a head")
        head, _, body = data.partition(b"\r\n\r\n")
        return head, body


class Pool:
    """Idle connections by address, shared by a reader's threads."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str], list[Connection]] = {}
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def take(self, scheme: str, netloc: str) -> tuple[Connection, bool]:
        """Return a connection, and whether it was used before. Raises OSError."""
        while True:
            with self._lock:
                idle = self._idle.get((scheme, netloc))
                kept = idle.pop() if idle else None
            if kept is None:
                port = 443 if scheme == "https" else 80
                return Connection(self, scheme, netloc, port), False
            if kept.is_fresh():
                return kept, True
            kept.close()

    def put(self, connection: Connection) -> None:
        """Keep a connection for the next request."""
        with self._lock:
            self._idle.setdefault(connection.address, []).append(connection)

    def tls(self) -> ssl.SSLContext:
        """Return the one context of this pool; making one reads all trusted roots."""
        with self._lock:
            if self._tls is None:
                import ssl

                self._tls = ssl.create_default_context()
            return self._tls

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()
