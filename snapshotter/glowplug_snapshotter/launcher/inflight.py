"""How many requests an engine still serves: by its own metrics, else by its TCP connections."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable

from .probe import connect, request

ESTABLISHED = "01"
POLL = 0.1  # s
SETTLED = 0.5  # s that nothing may be in flight before a drain is done
METRICS_TIMEOUT = 5.0
METRICS_LIMIT = 16 * 1024 * 1024  # bytes
LINE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def wait_until_idle(
    count: Callable[[], int | None], timeout: float, given_up: threading.Event
) -> bool:
    """Return True once `count` has been 0 for a moment, False after `timeout` s.

    None from `count` is not 0: an engine that does not answer may be busy.
    """
    started = time.monotonic()
    idle_since: float | None = None
    while True:
        idle = count() == 0
        now = time.monotonic()
        idle_since = (idle_since if idle_since is not None else now) if idle else None
        if idle_since is not None and now - idle_since >= SETTLED:
            return True
        if now - started >= timeout or given_up.wait(POLL):
            return False


def in_flight(port: int, metrics_path: str, selectors: tuple[str, ...]) -> int | None:
    """Return the requests in flight; None when the engine does not say.

    Without selectors, or when none of them is exported, established connections are counted; idle
    ones that a client keeps open count too, so whoever drains has to close its own.
    """
    if selectors:
        try:
            text = _metrics(port, metrics_path)
        except ConnectionRefusedError:
            return 0  # nobody listens
        except (OSError, http.client.HTTPException):
            return None
        total = sum_of(text, selectors)
        if total is not None:
            return round(total)
    return connections(port)


def sum_of(text: str, selectors: tuple[str, ...]) -> float | None:
    """Return the sum of all series that a selector names, None when there are none."""
    wanted = [_selector(selector) for selector in selectors]
    total: float | None = None
    for line in text.splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        labels = dict(LABEL.findall(found.group(2) or ""))
        for name, needed in wanted:
            if found.group(1) == name and all(labels.get(k) == v for k, v in needed.items()):
                total = (total or 0.0) + float(found.group(3))
    return total


def connections(port: int) -> int:
    """Return the established TCP connections to a local port, from /proc/net."""
    count = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                rows = file.read().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            _, local, _, state = row.split()[:4]
            if state == ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
                count += 1
    return count


def _metrics(port: int, path: str) -> str:
    connection = connect(port, METRICS_TIMEOUT)
    if connection is None:
        raise ConnectionRefusedError(f"nobody listens on port {port}")
    with connection:
        request(connection, path)
        response = http.client.HTTPResponse(connection)
        response.begin()
        if response.status != 200:
            raise http.client.HTTPException(f"status {response.status}")
        return response.read(METRICS_LIMIT).decode("utf-8", "replace")


def _selector(selector: str) -> tuple[str, dict[str, str]]:
    name, _, labels = selector.partition("{")
    return name, dict(LABEL.findall(labels))
