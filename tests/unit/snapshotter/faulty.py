"""A store on loopback that answers ranged GETs and errs by plan, down to the bytes on the wire."""

import contextlib
import hashlib
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

GARBAGE = b"\x16\x03\x01\x02\x00 this is no HTTP\r\n\r\n"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer; `at` is a byte of its body."""

    kind: str
    at: int = 0
    code: str = "Injected"


@dataclass
class Faulty:
    """`spoil(path, first, number)` may name a fault for the number-th request of a range."""

    files: dict[str, bytes]
    spoil: Callable[[str, int, int], Fault | None] = lambda path, first, number: None
    refuse: Callable[[dict[str, str]], Fault | None] = lambda headers: None
    asked: list[tuple[str, int, int]] = field(default_factory=list)  # path, first byte, bytes
    url: str = ""

    def __enter__(self) -> "Faulty":
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._numbers: Counter[tuple[str, int]] = Counter()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def drop(self) -> None:
        """Cut every connection, idle ones too."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def serving(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def bytes_asked(self, start: int = 0) -> int:
        return sum(length for _, _, length in self.asked[start:])

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve_all(connection)
        with self._lock:
            self._open.discard(connection)

    def _serve_all(self, connection: socket.socket) -> None:
        data = b""
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            while b"\r\n\r\n" not in data:
                more = connection.recv(65536)
                if not more:
                    return
                data += more
            head, _, data = data.partition(b"\r\n\r\n")
            if not self._answer(connection, head.decode("latin-1").split("\r\n")):
                return

    def _answer(self, connection: socket.socket, lines: list[str]) -> bool:
        path = unquote(lines[0].split(" ")[1].partition("?")[0]).lstrip("/")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        headers["target"] = lines[0].split(" ")[1]
        body = self.files.get(path)
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", ""))
        first, last = (int(found[1]), int(found[2])) if found else (0, len(body or b"") - 1)
        last = min(last, len(body or b"") - 1)
        with self._lock:
            self._numbers[path, first] += 1
            number = self._numbers[path, first]
            self.asked.append((path, first, last - first + 1))
        fault = self.refuse(headers) or self.spoil(path, first, number)
        if body is None and fault is None:
            fault = Fault("404", code="NoSuchKey")
        if fault is not None and fault.kind.isdigit():
            text = f"<Error><Code>{fault.code}</Code></Error>".encode()
            head = f"HTTP/1.1 {fault.kind} Fault\r\nContent-Length: {len(text)}\r\n\r\n"
            connection.sendall(head.encode() + text)
            return True
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        if headers.get("if-match", etag) != etag:
            connection.sendall(b"HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n")
            return True
        return self._send(connection, body, first, last, etag, bool(found), fault or Fault(""))

    def _send(
        self, connection: socket.socket, body: bytes, first: int, last: int, etag: str,
        ranged: bool, fault: Fault,
    ) -> bool:  # fmt: skip
        kind, total = fault.kind, len(body)
        data = bytearray(body[first : last + 1])
        at = min(fault.at, max(0, len(data) - 1))
        if kind == "whole":
            data, ranged = bytearray(body), False
        if kind == "elsewhere":
            first, last = first + 1, last + 1
        if kind == "etag":
            etag = '"of another object"'
        if kind == "flip" and data:
            data[at] ^= 1 << (fault.at % 8)
        if kind == "garbage":
            connection.sendall(GARBAGE)
            return False
        lengths = {"longer": len(data) + 7, "shorter": at}
        head = f"HTTP/1.1 {206 if ranged else 200} OK\r\nETag: {etag}\r\n"
        if ranged:
            head += f"Content-Range: bytes {first}-{last}/{total}\r\n"
        if kind == "chunked":
            half = len(data) // 2
            pieces = [bytes(data[:half]), bytes(data[half:])]
            data = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n\r\n"
            head += "Transfer-Encoding: chunked\r\n\r\n"
        else:
            head += f"Content-Length: {lengths.get(kind, len(data))}\r\n\r\n"
        if kind in ("longer", "babbling"):
            data += b"surplus"
        connection.sendall(head.encode())
        if kind in ("cut", "reset", "stall"):
            connection.sendall(data[:at])
            if kind == "stall":
                self._ended.wait(20)
            if kind == "reset":
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        connection.sendall(data)
        return kind != "shorter"
