"""Gives back the memory of weights that the engine has loaded: tmpfs keeps every file in memory.

Only safetensors that the restore itself wrote, and only on tmpfs. The restore's marker goes
first, so that a container restarted afterwards restores again.
"""

from __future__ import annotations

import json
import os

MARKER = ".glowplug-restored.json"  # the snapshotter writes it last
SUFFIX = ".safetensors"


def unlink_weights(model_dir: str) -> int:
    """Remove the loaded weights; return the bytes of the removed files."""
    if file_system(model_dir) != "tmpfs":
        return 0
    marker = os.path.join(model_dir, MARKER)
    try:
        with open(marker) as file:
            names = [entry["path"] for entry in json.load(file)["files"]]
        os.unlink(marker)
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return sum(_unlink(os.path.join(model_dir, n)) for n in names if n.endswith(SUFFIX))


def file_system(path: str, mounts: str = "/proc/self/mountinfo") -> str:
    """Return the type of the file system that holds `path`, empty when it cannot be told."""
    path = os.path.realpath(path)
    best, found = "", ""
    try:
        with open(mounts) as file:
            rows = file.read().splitlines()
    except OSError:
        return ""
    for row in rows:
        mount, _, rest = row.partition(" - ")
        point = mount.split()[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, found = point, rest.split()[0]
    return found


def _unlink(path: str) -> int:
    try:
        size = os.stat(path).st_size
        os.unlink(path)
    except OSError:
        return 0
    return size
