"""Finds out within milliseconds when an engine accepts connections and when it is healthy.

Then it looks on, slowly: an engine that hangs keeps its requests and its GPU until it is ended.

Some engines accept (the kernel does it for them) and then answer nothing while they load. So
there is one probe at a time, it waits on its connection, which is answered the moment the engine
comes back to life, and gives up ever later, so that dead connections cannot fill the backlog.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

INTERVAL = 0.02  # s between probes
PATIENCE = 1.0  # s until the first unanswered probe is given up; doubles up to LONGEST_PATIENCE
LONGEST_PATIENCE = 30.0
TRIES = 3  # without a healthy answer make an engine that has served one that hangs
LOOPBACKS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class Probe:
    """Watches one port for 2xx at `health_path`; reports each step once.

    `on_hung` gets what the last try met, once TRIES in a row, over `hang_timeout` s, were in vain.
    """

    def __init__(
        self,
        port: int,
        health_path: str,
        hang_timeout: float,
        *,
        on_accepting: Callable[[], None],
        on_healthy: Callable[[], None],
        on_hung: Callable[[str], None],
    ) -> None:
        self._port = port
        self._path = health_path
        self._period = hang_timeout / TRIES
        self._on_accepting = on_accepting
        self._on_healthy = on_healthy
        self._on_hung = on_hung
        self._stop = threading.Event()

    def start(self) -> None:
        """Watch in a thread."""
        threading.Thread(target=self._run, name="probe", daemon=True).start()

    def stop(self) -> None:
        """Report nothing more."""
        self._stop.set()

    def _run(self) -> None:
        if self._until_healthy():
            self._on_healthy()
            self._watch()

    def _watch(self) -> None:
        """Count tries, not time: a Pod that was frozen for a while has a healthy engine."""
        failures = 0
        while failures < TRIES:
            began = time.monotonic()
            problem = self._look()
            failures = 0 if problem is None else failures + 1
            if self._stop.wait(max(0.0, began + self._period - time.monotonic())):
                return
        self._on_hung(problem or "")

    def _look(self) -> str | None:
        """Ask once, for as long as a period; None is a healthy answer."""
        connection = connect(self._port, self._period)
        if connection is None:
            return "no connection"
        with connection:
            connection.settimeout(self._period)
            try:
                status = _ask(connection, self._path)
            except OSError as error:
                return "no answer" if isinstance(error, socket.timeout) else str(error)
        return None if 200 <= status < 300 else f"status {status}"

    def _until_healthy(self) -> bool:
        """Wait for the first healthy answer; false when told to stop."""
        accepting = False
        patience = PATIENCE
        while not self._stop.wait(INTERVAL):
            connection = connect(self._port, PATIENCE)
            if connection is None:
                continue
            with connection:
                if not accepting:
                    accepting = True
                    self._on_accepting()
                try:
                    connection.settimeout(patience)
                    status = _ask(connection, self._path)
                except socket.timeout:
                    patience = min(2 * patience, LONGEST_PATIENCE)
                    continue
                except OSError:
                    continue
            if 200 <= status < 300 and not self._stop.is_set():
                return True
        return False


def connect(port: int, timeout: float) -> socket.socket | None:
    """Return a connection to a local port, or None when nobody listens."""
    for family, host in LOOPBACKS:
        try:
            connection = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue  # no IPv6 here
        connection.settimeout(timeout)
        try:
            connection.connect((host, port))
        except OSError:
            connection.close()
            continue
        return connection
    return None


def request(connection: socket.socket, path: str) -> None:
    """Send one GET that ends the connection."""
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode())


def _ask(connection: socket.socket, path: str) -> int:
    request(connection, path)
    answer = b""
    while b"\r\n" not in answer and len(answer) < 1024:
        piece = connection.recv(1024)
        if not piece:
            break
        answer += piece
    words = answer.split(None, 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
