"""Shows a person at a terminal how far a transfer is; what programs read stays on standard output.

The bar is one line of standard error, and only where that is a terminal.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from glowplug_snapshotter.events import Emit, Event, stdout_emitter

WIDTH = 30  # characters of the bar itself
EVERY = 0.1  # s between two drawings
CLEAR = "\r\x1b[K"


def terminal_emitter() -> Emit:
    """Return an Emit for the command's own use: JSON lines, and a bar where a person looks on."""
    emit = stdout_emitter()
    if not sys.stderr.isatty():
        return emit
    return Bar(emit, sys.stderr, both=sys.stdout.isatty())


class Bar:
    """An Emit that draws progress, and passes everything on.

    `both` says that the lines go to the same screen: there the bar stands for progress events.
    """

    def __init__(
        self,
        emit: Emit,
        screen: TextIO,
        *,
        both: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._emit = emit
        self._screen = screen
        self._both = both
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: float | None = None
        self._drawn = float("-inf")

    def __call__(self, event: Event) -> None:
        """Draw or clear the bar, and pass the event on."""
        progress = event["event"] == "progress"
        with self._lock:
            if progress:
                self._draw(event["done"], event["total"])
            elif self._begun is not None:
                self._write(CLEAR)
                self._drawn = float("-inf")  # draw again at once
            if not (progress and self._both):
                self._emit(event)

    def _draw(self, done: int, total: int) -> None:
        now = self._clock()
        if self._begun is None:
            self._begun = now
        if now - self._drawn >= EVERY or done >= total:
            self._drawn = now
            self._write(CLEAR + line(done, total, now - self._begun))

    def _write(self, text: str) -> None:
        self._screen.write(text)
        self._screen.flush()


def line(done: int, total: int, elapsed: float) -> str:
    """Return the bar for `done` of `total` bytes after `elapsed` seconds."""
    share = min(1.0, done / total) if total else 1.0
    bar = "█" * int(share * WIDTH)
    rate = done / elapsed if elapsed > 0 else 0.0
    left = f", {(total - done) / rate:.0f} s left" if 0 < done < total and rate else ""
    return (
        f"{bar:░<{WIDTH}} {share:4.0%}  {_bytes(done)} of {_bytes(total)}  {_bytes(rate)}/s{left}"
    )


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
