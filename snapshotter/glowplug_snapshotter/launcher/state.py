"""What the launcher tells the world: the phase, and where each instant of the start went."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

RESTORING, STARTING, READY, DRAINING, FAILED = (
    "restoring",
    "starting",
    "ready",
    "draining",
    "failed",
)
OLDEST_START = 30.0  # s; a process start further back than this is not ours


class State:
    """The launcher's state behind one lock; every change has a number that pollers wait for.

    Stages that are not hidden follow each other without a gap from `launchedAt` to `readyAt`:
    a stage ends where the next one begins. Times are seconds since the epoch, on a clock that
    does not jump.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._epoch = time.time() - time.monotonic()
        self._seq = 1
        self._stages: list[dict[str, Any]] = []
        self._phase = RESTORING
        self._ready_at: float | None = None
        self._error: str | None = None
        self._exit_code: int | None = None
        self._restore: dict[str, Any] | None = None
        self.launched_at = self._process_start()

    def now(self) -> float:
        """Return seconds since the epoch, never going back."""
        return self._epoch + time.monotonic()

    def begin(self, stage: str, phase: str) -> None:
        """Start a stage on the critical path, at the end of the one before."""
        with self._changed:
            at = self._close_stage() if self._stages else self.launched_at
            self._stages.append(
                {"name": stage, "start": at, "end": None, "hidden": False, "bytes": 0}
            )
            if self._phase != DRAINING:
                self._phase = phase
            self._notify()

    def ready(self) -> None:
        """End the last stage: the engine serves."""
        with self._changed:
            self._ready_at = self._close_stage()
            if self._phase != DRAINING:
                self._phase = READY
            self._notify()

    def hide_before_launch(self, stage: dict[str, Any]) -> None:
        """Record what of a stage was done before this process began: nobody waited for it here."""
        with self._changed:
            if stage["start"] < self.launched_at:
                end = min(stage["end"], self.launched_at)
                self._stages.append({**stage, "end": end, "hidden": True})
                self._notify()

    def progress(self, done: int) -> None:
        """Record the bytes that the current stage has moved."""
        with self._changed:
            self._current()["bytes"] = done
            self._notify()

    def restored(self, result: dict[str, Any]) -> None:
        """Record what the snapshotter reported."""
        with self._changed:
            self._restore = result
            self._notify()

    def drain(self) -> None:
        """Stop being ready: no new request shall come."""
        with self._changed:
            if self._phase != FAILED:
                self._phase = DRAINING
            self._notify()

    def fail(self, error: str, exit_code: int | None) -> None:
        """Record the end, with a sentence."""
        with self._changed:
            self._phase = FAILED
            self._error = error
            self._exit_code = exit_code
            self._notify()

    def stopped(self, exit_code: int) -> None:
        """Record that the engine ended because it was asked to."""
        with self._changed:
            self._exit_code = exit_code
            self._notify()

    @property
    def is_ready(self) -> bool:
        """Whether requests may be sent."""
        with self._changed:
            return self._phase == READY

    @property
    def has_served(self) -> bool:
        """Whether it was ready at some time, so that requests may be in flight."""
        with self._changed:
            return self._ready_at is not None

    @property
    def is_failed(self) -> bool:
        """Whether the engine, or what it needs, is lost."""
        with self._changed:
            return self._phase == FAILED

    def wait(self, after: int, timeout: float) -> bytes:
        """Return the state as JSON once its number exceeds `after`, or after `timeout` s."""
        with self._changed:
            self._changed.wait_for(lambda: self._seq > after, timeout)
            return json.dumps(self._body()).encode()

    def _body(self) -> dict[str, Any]:
        return {
            "seq": self._seq,
            "phase": self._phase,
            "now": self.now(),
            "launchedAt": self.launched_at,
            "stages": [dict(stage) for stage in self._stages],
            "readyAt": self._ready_at,
            "error": self._error,
            "exitCode": self._exit_code,
            "restore": self._restore,
        }

    def _current(self) -> dict[str, Any]:
        return next(stage for stage in reversed(self._stages) if not stage["hidden"])

    def _close_stage(self) -> float:
        stage = self._current()
        if stage["end"] is None:
            stage["end"] = self.now()
        return float(stage["end"])

    def _notify(self) -> None:
        self._seq += 1
        self._changed.notify_all()

    def _process_start(self) -> float:
        """Return when this process began, so that the interpreter's start is accounted for."""
        now = self.now()
        try:
            with open("/proc/self/stat", "rb") as file:
                ticks = int(file.read().rpartition(b")")[2].split()[19])
            age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return now
        return now - age if 0 <= age <= OLDEST_START else now
