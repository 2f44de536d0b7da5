"""Retries one request with exponential backoff, until it works, is hopeless or is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from glowplug_snapshotter.errors import SnapshotError, TransientError

T = TypeVar("T")

ATTEMPTS = 7
FIRST_PAUSE = 0.1  # s; doubles each time, with jitter: about 6 s in all
LONGEST_PAUSE = 10.0


def with_retries(
    request: Callable[[], T],
    stop: threading.Event,
    *,
    attempts: int = ATTEMPTS,
    on_error: Callable[[TransientError], None] | None = None,
) -> T:
    """Run `request` again after each TransientError; the last one passes through.

    `on_error` hears of each.
    """
    pause = FIRST_PAUSE
    for attempt in range(1, attempts + 1):
        if stop.is_set():
            raise SnapshotError("Cancelled", "The work was cancelled.")
        try:
            return request()
        except TransientError as error:
            if on_error is not None:
                on_error(error)
            if attempt == attempts:
                raise
        import random  # only once something went wrong

        stop.wait(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError("unreachable: attempts >= 1")
