"""The sidecar form: restores beside the engine's container and tells the launcher on a socket.

A connection to the Unix socket means "have the model in the directory": events stream as JSON
lines until a result or an error. The restore starts with the process, not with the first
connection, and runs again when a later launcher finds the files gone (unlinked once loaded).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import threading
from pathlib import Path
from typing import NoReturn

from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.events import Emit, Event, error_event
from glowplug_snapshotter.restore import Request, restore

LAST_EVENTS = ("result", "error")


class Sidecar:
    """Runs restores one at a time and streams their events to every listener."""

    def __init__(self, request: Request, emit: Emit) -> None:
        self._request = request
        self._emit = emit
        self._lock = threading.Lock()
        self._running = False
        self._told: list[Event] = []
        self._listeners: list[queue.SimpleQueue[Event]] = []

    def ensure(self) -> queue.SimpleQueue[Event]:
        """Join the restore under way, or start one; return the queue of its events.

        The first to come after a restore that nobody heard gets that one's story.
        """
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        with self._lock:
            finished = bool(self._told) and self._told[-1]["event"] == "result"
            if not self._running and not finished:
                self._start()
            for event in self._told:
                events.put(event)
            if self._running:
                self._listeners.append(events)
            else:
                self._told.clear()
        return events

    def start(self) -> None:
        """Restore before anyone asks."""
        with self._lock:
            self._start()

    def _start(self) -> None:
        self._running = True
        self._told.clear()
        threading.Thread(target=self._restore, daemon=True).start()

    def _restore(self) -> None:
        try:
            last = restore(self._request, self._tell)
        except SnapshotError as error:
            last = error_event(error)
        self._tell(last)

    def _tell(self, event: Event) -> None:
        self._emit(event)
        with self._lock:
            heard = bool(self._listeners)
            for listener in self._listeners:
                listener.put(event)
            if event["event"] == "progress":
                self._told = [e for e in self._told if e["event"] != "progress"]
            self._told.append(event)
            if event["event"] in LAST_EVENTS:
                self._running = False
                self._listeners.clear()
                if heard:
                    self._told.clear()


def serve(request: Request, path: Path, emit: Emit) -> NoReturn:
    """Restore at once, then answer launchers until the process is ended."""
    os.umask(0)  # the engine's container may run as another user, and unlinks what it has loaded
    sidecar = Sidecar(request, emit)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        listener.bind(str(path))
    except OSError as error:
        raise SnapshotError("Unavailable", f"{path} cannot be listened on: {error}.") from None
    listener.listen()
    sidecar.start()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_stream, args=(connection, sidecar.ensure()), daemon=True).start()


def _stream(connection: socket.socket, events: queue.SimpleQueue[Event]) -> None:
    with connection, contextlib.suppress(OSError):
        while True:
            event = events.get()
            connection.sendall(json.dumps(event, separators=(",", ":")).encode() + b"\n")
            if event["event"] in LAST_EVENTS:
                return
