"""Processes of a Pod, found on the node by their cgroup: so that a test can kill one for real."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def of_pod(uid: str, word: str) -> list[int]:
    """Pids whose cgroup is the Pod's and whose command line has an argument containing `word`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            groups = (entry / "cgroup").read_text()
        except OSError:
            continue
        if uid in groups and any(word.encode() in argument for argument in arguments):
            found.append(int(entry.name))
    return found


def kill(pids: list[int]) -> None:
    """SIGKILL them; one that is already gone is done."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
