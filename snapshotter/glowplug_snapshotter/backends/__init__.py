"""Where bytes come from: one small protocol, one module for each way to reach them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from glowplug_snapshotter.errors import TransientError


@dataclass(frozen=True, slots=True)
class Entry:
    """An object to read, pinned: `path` is relative to the reader's root.

    `validator` is the ETag (or what stands for one) that every read must meet; None for content
    that is proved by its own checksum. `sha256` is the source's own checksum where it has one.
    """

    path: str
    size: int
    validator: str | None = None
    sha256: str | None = None


class Ticket:
    """One read, as others see it: whether its answer has begun, and a way to give it up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        self.given_up = False
        self.answered_at: float | None = None  # time.monotonic() of the answer's first byte

    def answered(self) -> None:
        """Note that the answer has begun."""
        self.answered_at = time.monotonic()

    def give_up(self) -> None:
        """Make the read end soon with an error, from whatever thread."""
        with self._lock:
            self.given_up = True
            if self._interrupt is not None:
                self._interrupt()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold `give_up` off while the block writes; TransientError once it was called."""
        with self._lock:
            if self.given_up:
                raise TransientError("The read was given up.")
            yield

    @contextmanager
    def interruptible(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Have `give_up` call `interrupt` while the block runs."""
        with self._lock:
            self._interrupt = interrupt
            if self.given_up:
                interrupt()
        try:
            yield
        finally:
            with self._lock:
                self._interrupt = None


class Reader(Protocol):
    """Reads objects below one root, from several threads at once."""

    streams: int  # concurrent requests that serve this back end well, to begin with

    def describe(self, path: str) -> str:
        """Return the object's name for people: bucket and key, never a signature."""

    def entries(self) -> list[Entry]:
        """Return every object below the root, pinned, by path."""

    def revision(self) -> str | None:
        """Return the immutable revision behind the root, where the source has one."""

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small object whole; SnapshotError when it is longer than `limit` bytes."""

    def read_into(
        self, entry: Entry, offset: int, view: memoryview, ticket: Ticket | None = None
    ) -> None:
        """Fill `view` with the object's bytes from `offset` on.

        Raises TransientError when another try may help, otherwise SnapshotError:
        NotFound, Forbidden, SourceChanged. Nothing is written to `view` after it returned or
        raised; a `ticket` that is given up makes it raise soon.
        """

    def close(self) -> None:
        """Let go of connections; the reader may be used again."""
