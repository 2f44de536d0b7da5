"""The launcher's zipapp as a real process with real children."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from glowplug_snapshotter.launcher.build import build

ENGINE = Path(__file__).with_name("engine.py")


@dataclass
class Launcher:
    """A running launcher and its engine."""

    process: subprocess.Popen
    port: int
    engine_port: int
    env: dict[str, str]
    pyz: Path

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{port or self.port}{path}", timeout=60) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def engine(self, path: str) -> str:
        return self.get(path, self.engine_port)[1]

    def state(self, after: int = 0, timeout: float = 30) -> dict[str, Any]:
        return json.loads(self.get(f"/state?after={after}&timeout={timeout}")[1])

    def until(self, phase: str, timeout: float = 60) -> dict[str, Any]:
        """Follow the long poll until the launcher is in `phase`."""
        deadline = time.monotonic() + timeout
        seq, state = 0, None
        while time.monotonic() < deadline:
            try:
                state = self.state(seq, 1)
            except OSError:
                time.sleep(0.02)  # its port is not open yet
                continue
            if state["phase"] == phase:
                return state
            seq = state["seq"]
        raise AssertionError(f"not {phase} within {timeout} s: {state}")

    def answers(self) -> None:
        """Wait until the engine answers, healthy or not."""
        wait_for(lambda: self._reached("/health"))

    def _reached(self, path: str) -> bool:
        try:
            self.engine(path)
        except OSError:
            return False
        return True

    def drain(self) -> subprocess.Popen:
        """Start the preStop command."""
        command = [sys.executable, self.pyz, "drain"]
        return subprocess.Popen(command, env=self.env, stderr=subprocess.PIPE)

    def wait(self, timeout: float = 60) -> int:
        return self.process.wait(timeout)

    def says(self, text: str) -> None:
        """Read on to the line of output that holds `text`."""
        for line in self.process.stdout:
            if text in line.decode():
                return
        raise AssertionError(f"{text!r} was not said")

    def output(self) -> str:
        """Return what engine and launcher wrote, once the launcher has ended."""
        return self.process.stdout.read().decode()


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("launcher") / "launcher.pyz"
    build(path)
    return path


@pytest.fixture
def launch(
    pyz: Path, free_port: Callable[[], int], tmp_path: Path
) -> Iterator[Callable[..., Launcher]]:
    running: list[Launcher] = []

    def start(
        *, env: dict[str, str] | None = None, prefix: Sequence[str] = (), **changes: Any
    ) -> Launcher:
        port, engine_port = free_port(), free_port()
        config = {
            "model": "team/model",
            "port": engine_port,
            "launcherPort": port,
            "healthPath": "/health",
            "metricsPath": "/metrics",
            "inflightMetrics": ["run"],
            "command": [sys.executable, "-u", str(ENGINE)],
            "modelDir": str(tmp_path / "model"),
            "restore": {"mode": "none"},
            "startTimeout": 60,
            "drainTimeout": 60,
            **changes,
        }
        full = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GLOWPLUG_PORT": str(engine_port),
            **(env or {}),
            "GLOWPLUG_LAUNCH": json.dumps(config),
        }
        process = subprocess.Popen(
            [*prefix, sys.executable, pyz, "run"],
            env=full,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        running.append(Launcher(process, port, engine_port, full, pyz))
        return running[-1]

    yield start
    for launcher in running:
        if launcher.process.poll() is None:
            for child in children(launcher.process.pid):
                os.kill(child, 9)
            launcher.process.kill()
            launcher.process.wait()
        launcher.process.stdout.close()


def wait_for(condition: Callable[[], object], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, zombies too."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found
