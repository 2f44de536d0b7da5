"""The example's server as a process of its own, over a stand-in for mistral.rs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[2] / "examples" / "smollm2"
sys.path[:0] = [str(EXAMPLE), str(HERE)]

from served import Served, until  # noqa: E402


@pytest.fixture
def start(free_port: Callable[[], int], tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start a server; keyword arguments are further environment."""
    running: list[Served] = []
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))

    def begin(**environment: str) -> Served:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLE / "server.py")],
            env=os.environ
            | {
                "PYTHONPATH": str(HERE / "stub"),
                "GLOWPLUG_MODEL_DIR": str(tmp_path),
                "GLOWPLUG_PORT": str(port),
                "GLOWPLUG_SERVED_NAME": "tiny",
            }
            | environment,
        )
        running.append(Served(process, f"http://127.0.0.1:{port}"))
        return running[-1]

    yield begin
    for served in running:
        if served.process.poll() is None:
            served.process.kill()
        served.process.wait()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """What opens once the test touches it."""
    return tmp_path / "gate"


@pytest.fixture
def served(start: Callable[..., Served]) -> Served:
    """A server whose model is loaded and makes a token every 10 ms."""
    server = start()
    until(lambda: server.health() == 200)
    return server
