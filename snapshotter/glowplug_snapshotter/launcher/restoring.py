"""Has the model brought: by `glowplug-snapshotter` as a child, or by the sidecar that runs it.

Both tell the same story in JSON lines: progress, file, and at last a result or an error.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from .config import Restore, restore_environment
from .processes import spawn

PROGRAM = "glowplug-snapshotter"
RETRY = 0.05  # s between attempts to reach the sidecar

Report = Callable[[dict[str, Any]], None]


def restore_in_child(
    restore: Restore, model_dir: str, environ: dict[str, str], tell: Report
) -> int:
    """Start the snapshotter and report its events from a thread; return its pid.

    The story always ends in a result or an error. Raises OSError when it cannot be started.
    """
    read_end, write_end = os.pipe()
    try:
        pid = spawn(_command(restore, model_dir), restore_environment(environ), stdout=write_end)
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    lines = os.fdopen(read_end, "rb")
    threading.Thread(target=_tell_all, args=(lines, tell), name="restore", daemon=True).start()
    return pid


def restore_in_sidecar(path: str, stop: threading.Event, tell: Report) -> None:
    """Ask the sidecar for the model and report its events from a thread, until `stop`.

    `path` is its Unix socket. A sidecar that is not there yet, or restarts, is asked again.
    """
    threading.Thread(target=_ask, args=(path, stop, tell), name="restore", daemon=True).start()


def _ask(path: str, stop: threading.Event, tell: Report) -> None:
    while not stop.wait(RETRY):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            with connection.makefile("rb") as lines:
                if _tell_lines(lines, tell):
                    return
        except OSError:
            continue
        finally:
            connection.close()


def _tell_all(lines: Iterable[bytes], tell: Report) -> None:
    if not _tell_lines(lines, tell):
        time.sleep(RETRY)  # let what it said on standard error come first
        tell(
            {
                "event": "error",
                "reason": "Internal",
                "message": "The restore process ended without a result: its output above says why.",
            }
        )


def _tell_lines(lines: Iterable[bytes], tell: Report) -> bool:
    """Report each line; return whether the story came to its end."""
    for line in lines:
        try:
            event = json.loads(line)
            name = event["event"]
        except (ValueError, KeyError, TypeError):
            sys.stderr.write(line.decode("utf-8", "replace"))
            continue
        tell(event)
        if name in ("result", "error"):
            return True
    return False


def _command(restore: Restore, model_dir: str) -> tuple[str, ...]:
    command = [*_program(), "restore", "--from", restore.url, "--kind", restore.kind]
    if restore.digest:
        command += ["--digest", restore.digest]
    if restore.endpoint:
        command += ["--endpoint", restore.endpoint]
    if restore.cache:
        command += ["--cache", restore.cache]
    if restore.compile_cache:
        command += ["--compile-cache", restore.compile_cache.directory]
        for name, value in sorted(restore.compile_cache.key.items()):
            command += ["--key", f"{name}={value}"]
    return (*command, "--to", model_dir)


def _program() -> list[str]:
    for folder in os.get_exec_path():
        if os.access(os.path.join(folder, PROGRAM), os.X_OK):
            return [os.path.join(folder, PROGRAM)]
    return [sys.executable or "python3", "-m", "glowplug_snapshotter"]
