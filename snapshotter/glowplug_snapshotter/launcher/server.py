"""The launcher's own port: /healthz, /readyz, and /state with its long poll."""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .state import State

LONGEST_POLL = 60.0  # s


def serve(state: State, port: int) -> None:
    """Answer on all addresses, IPv6 too where there is IPv6; raises OSError when the port is taken.

    Returns at once; the answers come from threads.
    """
    handler = type("Handler", (_Handler,), {"state": state})
    server: _Server
    try:
        server = _DualStack(("::", port), handler)
    except OSError:
        server = _Server(("0.0.0.0", port), handler)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        # not HTTPServer's own: it looks up the host's name, which hangs where DNS does
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "launcher", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that leave."""


class _DualStack(_Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(http.server.BaseHTTPRequestHandler):
    state: State
    protocol_version = "HTTP/1.1"
    timeout = 120  # s for a client to say something

    def do_GET(self) -> None:
        """Answer one request."""
        url = urlsplit(self.path)
        if url.path == "/healthz":
            self._verdict(not self.state.is_failed)
        elif url.path == "/readyz":
            self._verdict(self.state.is_ready)
        elif url.path == "/state":
            self._state(parse_qs(url.query))
        else:
            self._answer(404, b'{"error": "not found"}')

    def _state(self, query: dict[str, list[str]]) -> None:
        try:
            after = int(query.get("after", ["0"])[0])
            timeout = float(query.get("timeout", ["30"])[0])
        except ValueError:
            self._answer(400, b'{"error": "after and timeout are numbers"}')
            return
        self._answer(200, self.state.wait(after, min(max(timeout, 0.0), LONGEST_POLL)))

    def _verdict(self, good: bool) -> None:
        self._answer(200 if good else 503, b'{"ok": true}' if good else b'{"ok": false}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the engine's log the engine's."""
