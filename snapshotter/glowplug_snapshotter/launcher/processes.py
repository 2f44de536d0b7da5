"""The duties of PID 1: spawn with a clean signal mask, reap every orphan, guard the secrets."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36


def become_init() -> None:
    """Adopt orphans where we are not PID 1, and hide our environment from other processes.

    The launcher holds the restore's credentials in its own environment; a process that is not
    dumpable has a /proc/1/environ that the engine cannot read.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def listen(signals: set[signal.Signals], on_signal: Callable[[int], None]) -> None:
    """Have every one of `signals` reported by a thread that does nothing else; call it first.

    A Python handler runs only when the main thread next runs bytecode: a signal that arrives just
    before that thread blocks on a queue would wait for ever. Threads started later inherit the
    mask, so that no other one can take the signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait() -> None:
        while True:
            on_signal(signal.sigwait(signals))

    threading.Thread(target=wait, name="signals", daemon=True).start()


def spawn(command: tuple[str, ...], environ: dict[str, str], stdout: int | None = None) -> int:
    """Start a program found on PATH, with default signals; return its pid, or raise OSError."""
    actions = [] if stdout is None else [(os.POSIX_SPAWN_DUP2, stdout, 1)]
    return os.posix_spawnp(
        command[0],
        command,
        environ,
        file_actions=actions,
        setsigmask=[],
        setsigdef=[s for s in signal.Signals if s not in (signal.SIGKILL, signal.SIGSTOP)],
    )


def reap() -> Iterator[tuple[int, int]]:
    """Yield (pid, exit code) of every child that has ended; 128+n for one killed by signal n."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        yield pid, code if code >= 0 else 128 - code


def send(pid: int, number: int) -> None:
    """Send a signal to a child that may have ended already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
