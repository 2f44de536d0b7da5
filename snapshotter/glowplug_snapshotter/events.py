"""Says what happens as JSON lines on standard output, the last one also to a termination log."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from glowplug_snapshotter.errors import SnapshotError

Event = dict[str, Any]
Emit = Callable[[Event], None]

TERMINATION_LIMIT = 4096  # bytes that Kubernetes keeps of a termination message


def stdout_emitter() -> Emit:
    """Return an Emit that writes whole lines, from any thread."""
    lock = threading.Lock()

    def emit(event: Event) -> None:
        line = json.dumps(event, separators=(",", ":")) + "\n"
        with lock:
            sys.stdout.write(line)
            sys.stdout.flush()

    return emit


def error_event(error: SnapshotError) -> Event:
    """Return the event that ends a failed run."""
    return {"event": "error", "reason": error.reason, "message": error.message}


def write_termination_log(path: str, event: Event) -> None:
    """Write the last event where Kubernetes reads a container's termination message."""
    data = json.dumps(event, separators=(",", ":")).encode()
    if len(data) > TERMINATION_LIMIT:
        event = {**event, "message": str(event.get("message", ""))[:2000], "truncated": True}
        data = json.dumps(event, separators=(",", ":")).encode()[:TERMINATION_LIMIT]
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        print(f"glowplug-snapshotter: cannot write {path}: {error}", file=sys.stderr)
