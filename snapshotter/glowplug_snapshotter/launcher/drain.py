"""`drain`, the preStop: asks PID 1 to let its requests end, and waits until they have.

They talk over an abstract Unix socket, which needs no writable directory; only processes of the
same user, or root, are listened to.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable

DRAINED, GIVEN_UP = b"drained\n", b"given up\n"
MARGIN = 10.0  # s that the client waits beyond the drain's own timeout


Answer = Callable[[bool], None]


class Drain:
    """The one drain of a launcher's life: everyone who asks is answered when it ends."""

    def __init__(self) -> None:
        self._answers: list[Answer] = []
        self._idle: bool | None = None
        self.begun = False

    @property
    def ended(self) -> bool:
        """Whether nothing is in flight any more, or the time for it ran out."""
        return self._idle is not None

    def join(self, answer: Answer) -> None:
        """Have `answer` called with the outcome, now or when it is known."""
        if self._idle is None:
            self._answers.append(answer)
        else:
            answer(self._idle)

    def end(self, idle: bool) -> None:
        """Answer all."""
        self._idle = idle
        for answer in self._answers:
            answer(idle)
        self._answers.clear()


def listen(port: int, on_drain: Callable[[Answer], None]) -> None:
    """Hear requests to drain in a thread; `on_drain` gets the function that answers one.

    Raises OSError when another launcher has this port.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(_address(port))
    listener.listen()
    threading.Thread(target=_accept, args=(listener, on_drain), name="drain", daemon=True).start()


def ask(port: int, timeout: float) -> int:
    """Ask the launcher to drain; return the exit status of the command."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout + MARGIN)
        try:
            connection.connect(_address(port))
            answer = connection.recv(64)
        except OSError as error:
            print(f"glowplug: the launcher did not answer: {error}", file=sys.stderr)
            return 1
    if answer == DRAINED:
        return 0
    print("glowplug: requests were still in flight when the drain ended", file=sys.stderr)
    return 1


def _accept(listener: socket.socket, on_drain: Callable[[Answer], None]) -> None:
    while True:
        connection, _ = listener.accept()
        if _peer(connection) in (0, os.getuid()):
            on_drain(_answerer(connection))
        else:
            connection.close()


def _answerer(connection: socket.socket) -> Answer:
    def answer(drained: bool) -> None:
        with connection, contextlib.suppress(OSError):  # the preStop may have been given up
            connection.sendall(DRAINED if drained else GIVEN_UP)

    return answer


def _peer(connection: socket.socket) -> int:
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", credentials)[1])


def _address(port: int) -> str:
    return f"\0glowplug-launcher-{port}"
