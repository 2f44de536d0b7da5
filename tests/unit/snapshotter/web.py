"""A web server on loopback that serves a directory with ranges and ETags, and errs on demand."""

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Fault:
    """What goes wrong with one answer."""

    status: int | None = None
    cut: int | None = None  # bytes of the body after which the connection is reset
    flip: int | None = None  # byte of the body whose lowest bit is flipped
    extra: bytes = b""  # sent after the body, and announced
    etag: str | None = None
    pause: float = 0.0  # s before each 1 MiB of the body


@dataclass
class Web:
    """A directory served with ranges; `fault(path, first, number)` may spoil an answer."""

    url: str
    root: Path
    fault: Callable[[str, int, int], Fault | None] = lambda path, first, number: None
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    pages: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)


class web_server:  # noqa: N801 - used like a function
    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> Web:
        self._root.mkdir(exist_ok=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.web = Web(f"http://127.0.0.1:{self._server.server_address[1]}", self._root)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self._server.web

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        web: Web = self.server.web
        path = unquote(urlsplit(self.path).path).lstrip("/")
        web.requests.append((path, dict(self.headers)))
        if path in web.redirects:
            self._head(302, [("Location", web.redirects[path]), ("Content-Length", "0")])
            return
        data = web.pages.get(path)
        if data is None:
            file = web.root / path
            data = file.read_bytes() if file.is_file() else None
        first = self._first()
        number = sum(1 for asked, _ in web.requests if asked == path)
        fault = web.fault(path, first or 0, number) or Fault()
        if data is None or fault.status is not None:
            body = b"<Error><Code>Injected</Code></Error>"
            self._head(fault.status or 404, [("Content-Length", str(len(body)))])
            self.wfile.write(body)
            return
        self._send(data, first, fault)

    def _first(self) -> int | None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.last = int(found[2]) if found else 0
        return int(found[1]) if found else None

    def _send(self, data: bytes, first: int | None, fault: Fault) -> None:
        etag = fault.etag or f'"{hashlib.md5(data).hexdigest()}"'
        if self.headers.get("If-Match") not in (None, etag):
            self._head(412, [("Content-Length", "0")])
            return
        body, headers = bytearray(data), [("ETag", etag)]
        if first is not None:
            last = min(self.last, len(data) - 1)
            body = body[first : last + 1]
            headers.append(("Content-Range", f"bytes {first}-{last}/{len(data)}"))
        if fault.flip is not None:
            body[fault.flip] ^= 1
        body += fault.extra
        headers.append(("Content-Length", str(len(body))))
        self._head(200 if first is None else 206, headers)
        for at in range(0, len(body), 1 << 20):
            time.sleep(fault.pause)
            piece = body[at : at + (1 << 20)]
            if fault.cut is not None and at + len(piece) > fault.cut:
                self.wfile.write(piece[: fault.cut - at])
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            try:
                self.wfile.write(piece)
            except OSError:
                return

    def _head(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass
