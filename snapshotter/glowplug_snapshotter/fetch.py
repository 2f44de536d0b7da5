"""One ranged read, asked again on another connection when it lags: the first to end wins."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from glowplug_snapshotter.backends import Entry, Reader, Ticket
from glowplug_snapshotter.errors import TransientError

PATIENCE = 1.0  # s in which nothing is called late
UNKNOWN = 5.0  # s, while nothing is known of what is usual
FACTOR = 4.0  # times the median that is late
SAMPLES = 32


class Usual:
    """What a range takes here, by the last ones; used by several threads."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=SAMPLES)  # s per byte

    def add(self, seconds: float, count: int) -> None:
        """Note one range."""
        self._recent.append(seconds / max(1, count))

    def is_late(self, seconds: float, count: int) -> bool:
        """Say whether a range of `count` bytes lags far behind the others."""
        if len(self._recent) < 2:
            return seconds > UNKNOWN
        ordered = sorted(self._recent)
        return seconds > max(PATIENCE, FACTOR * ordered[len(ordered) // 2] * count)


class Fetch:
    """Fills `view` once, by one request or two. `run` in one thread, `double` from another."""

    def __init__(self, reader: Reader, entry: Entry, offset: int, view: memoryview) -> None:
        self.started = time.monotonic()
        self.view = view
        self._request = (reader, entry, offset)
        self._ticket = Ticket()
        self._lock = threading.Lock()
        self._closed = False
        self._second: _Second | None = None

    @property
    def answered_at(self) -> float | None:
        """Return when the first byte of the first request's answer came."""
        return self._ticket.answered_at

    def run(self) -> None:
        """Read; raises what the first request raised, unless the second one did better."""
        reader, entry, offset = self._request
        try:
            reader.read_into(entry, offset, self.view, self._ticket)
        except TransientError:
            second = self._close()
            if second is None or not second.won():
                raise
            self.view[:] = second.view
        finally:
            second = self._close()
            if second is not None:
                second.ticket.give_up()
                second.release()

    def double(self, buffer: memoryview, give_back: Callable[[], None]) -> bool:
        """Ask again, into `buffer`, which is given back when it is free; False when too late."""
        with self._lock:
            if self._closed or self._second is not None:
                return False
            self._second = _Second(self, buffer[: len(self.view)], give_back)
        threading.Thread(target=self._second.run, args=self._request, daemon=True).start()
        return True

    def cancel(self) -> None:
        """Make `run` end soon."""
        second = self._close()
        self._ticket.give_up()
        if second is not None:
            second.ticket.give_up()

    def overtaken(self) -> None:
        """End the first request: the second one has all bytes."""
        self._ticket.give_up()

    def _close(self) -> _Second | None:
        with self._lock:
            self._closed = True
            return self._second


class _Second:
    """The second request of a lagging fetch, in a thread and a buffer of its own."""

    def __init__(self, first: Fetch, view: memoryview, give_back: Callable[[], None]) -> None:
        self.view = view
        self.ticket = Ticket()
        self._first = first
        self._give_back = give_back
        self._whole = False
        self._ended = threading.Event()
        self._holders = 2  # the thread that fills the buffer, and the one that may copy it
        self._lock = threading.Lock()

    def run(self, reader: Reader, entry: Entry, offset: int) -> None:
        """Read, and end the first request if it is still under way."""
        try:
            reader.read_into(entry, offset, self.view, self.ticket)
            self._whole = True
        except Exception:  # the first request's fate decides then
            self._whole = False
        finally:
            self._ended.set()
            if self._whole:
                self._first.overtaken()
            self.release()

    def won(self) -> bool:
        """Wait for its end; return whether it has all bytes."""
        self._ended.wait()
        return self._whole

    def release(self) -> None:
        """Give the buffer back when both who use it have let go."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._give_back()
