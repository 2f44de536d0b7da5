"""What both sides of the proxy share: addresses, requests, heads as bytes, limits."""

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple

Headers = list[tuple[bytes, bytes]]  # names in lower case, in the order received

# RFC 9110 section 7.6.1, and the framing, which each side of a proxy writes for itself.
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Address(NamedTuple):
    """Where an engine listens."""

    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class WireLimits:
    """Bounds of one connection: sizes in bytes, times in seconds."""

    head_bytes: int = 64 * 1024
    body_bytes: int = 32 * 1024 * 1024
    # Framing around a body (chunk sizes, extensions, trailers) that a sane client stays far below.
    framing_bytes: int = 1024 * 1024
    pipelined: int = 8
    head_timeout: float = 30.0
    stall_timeout: float = 60.0
    # Longer than the idle time of common load balancers (AWS 60 s, Google 600 s): they close first.
    idle_timeout: float = 620.0
    linger: float = 5.0
    # How long a stopping server lets a connection rest: a client that was promised another answer
    # on it, and asks within this time, gets one and is told to go elsewhere for the next. Also how
    # long no new connection must have come before it closes its port.
    farewell: float = 3.0
    connect_timeout: float = 3.0
    # Shorter than uvicorn's 5 s, so that a pooled connection is seldom closed under a request.
    engine_idle: float = 4.0


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. `received`: loop time at which its first byte came, s."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes
    http11: bool
    keep_alive: bool
    received: float

    def header(self, name: bytes) -> bytes | None:
        """The first field of that name (lower case), or None."""
        return next((value for key, value in self.headers if key == name), None)


def end_to_end(headers: Headers, drop: Iterable[bytes] = ()) -> Headers:
    """The fields a proxy passes on: none that describe this connection, none in `drop`."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    gone = _HOP_BY_HOP.union(named, drop)
    return [field for field in headers if field[0] not in gone]


def request_head(
    method: bytes, target: bytes, address: Address, headers: Headers, length: int
) -> bytes:
    """A request head with its own Host and Content-Length."""
    ip, port = address
    host = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method, target, host.encode())]
    lines += [b"%b: %b\r\n" % field for field in headers]
    lines.append(b"content-length: %d\r\n\r\n" % length)
    return b"".join(lines)


def response_head(status: int, headers: Headers) -> bytes:
    """A response head, up to and with the empty line."""
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    lines += [b"%b: %b\r\n" % field for field in headers]
    lines.append(b"\r\n")
    return b"".join(lines)


def has_body(status: int) -> bool:
    """Whether a response of this status may carry a body."""
    return status >= 200 and status not in (204, 304)


def notice_vanished_peers(sock: socket.socket) -> None:
    """Let the kernel end a connection whose other side is gone without a word, within 30 s.

    Probes find it while nothing is sent, the user timeout while sent bytes are not taken.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
