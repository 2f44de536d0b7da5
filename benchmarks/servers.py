"""Servers that a benchmark starts for itself: when they answer, and how they end."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request


def await_answer(url: str, server: subprocess.Popen[bytes], patience: float) -> None:
    """Wait until `url` answers anything; OSError after `patience` s, or when the server ended."""
    deadline = time.monotonic() + patience
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, and kill it when it does not."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
