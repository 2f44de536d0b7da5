"""Turns the first SIGTERM or SIGINT into an exception in the main thread, wherever it waits."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

SIGNALS = {signal.SIGTERM, signal.SIGINT}
AGAIN = 0.05  # s


class Cancelled(BaseException):
    """The work is to end now. No Exception: whoever expects failures must not take it for one."""


def raise_on_signal() -> None:
    """Raise Cancelled in the calling thread, the main one, at the first signal; ignore later ones.

    A Python handler runs only when the main thread next runs bytecode: a signal that arrives just
    before that thread blocks would wait for ever. So a thread takes the signal and interrupts the
    main one until it has heard. Call it before any other thread starts: they inherit the mask.
    """
    main = threading.get_ident()
    heard: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not heard:
            heard.append(number)
            raise Cancelled

    def listen() -> None:
        signal.sigwait(SIGNALS)
        while not heard:
            signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(AGAIN)

    signal.signal(signal.SIGUSR1, interrupt)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=listen, name="signals", daemon=True).start()
