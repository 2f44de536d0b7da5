"""A small OpenAI-compatible server for one model on a CPU: the engine of the example.

It stands where vLLM stands on a GPU: the same paths, the same names of metrics, a bounded number of
sequences at once and a queue in front of them. The model lives in a process of its own (worker.py),
which starts first, so that the HTTP library (app.py) is imported while the model loads.

Environment: GLOWPLUG_MODEL_DIR (a folder of safetensors), GLOWPLUG_PORT, GLOWPLUG_SERVED_NAME, and
GLOWPLUG_EXAMPLE_START_DELAY (seconds before anything starts: a slow engine, for tests).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from engine import SLOTS, spawn

WORKER = [sys.executable, str(Path(__file__).with_name("worker.py")), str(SLOTS)]
REQUIRED = ("GLOWPLUG_MODEL_DIR", "GLOWPLUG_PORT", "GLOWPLUG_SERVED_NAME")


def main() -> None:
    """Serve until SIGTERM, then finish what is in flight; exit with 1 if the worker dies."""
    if missing := [name for name in REQUIRED if not os.environ.get(name)]:
        sys.exit(f"Set {', '.join(missing)}: the server needs a model, a port and a name.")
    time.sleep(float(os.environ.get("GLOWPLUG_EXAMPLE_START_DELAY") or 0))
    worker, channel = spawn(WORKER)
    try:
        import asyncio

        import app

        name, port = os.environ["GLOWPLUG_SERVED_NAME"], int(os.environ["GLOWPLUG_PORT"])
        alive = asyncio.run(app.serve(channel, served_name=name, port=port))
    finally:
        worker.kill()
        status = worker.wait()
    if not alive:
        sys.exit(f"The worker process ended with status {status}; its last lines say why.")


if __name__ == "__main__":
    main()
