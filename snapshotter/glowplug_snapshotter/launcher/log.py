"""The launcher's few lines on standard error, as JSON; everything else there is the engine's."""

from __future__ import annotations

import json
import os
import sys
import time

TERMINATION_LOG = "/dev/termination-log"


def say(event: str, **fields: object) -> None:
    """Write one line."""
    line = {"time": round(time.time(), 3), "logger": "glowplug-launcher", "event": event, **fields}
    print(json.dumps(line), file=sys.stderr, flush=True)


def write_termination_message(message: dict[str, object]) -> None:
    """Leave the reason of the end where Kubernetes keeps it, if this is a Kubernetes container."""
    if not os.path.exists(TERMINATION_LOG):
        return
    try:
        with open(TERMINATION_LOG, "w") as file:
            file.write(json.dumps(message)[:4096])
    except OSError:
        pass  # a read-only one is no reason to fail differently
