"""The chart as helm renders it."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluster.config import REPOSITORY, paths

CHART = REPOSITORY / "charts" / "glowplug"
Render = Callable[..., list[dict]]


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run helm: the one that the local cluster was built with, or the machine's."""
    built = paths().bin / "helm"
    program = str(built) if built.exists() else shutil.which("helm")
    if program is None:
        pytest.skip("there is no helm yet: `make test` builds it")

    def run(*words: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *map(str, words)],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """Render the chart's objects; arguments are `key=value`, as for --set."""

    def objects(*values: str, chart: Path = CHART) -> list[dict]:
        settings = [word for value in values for word in ("--set", value)]
        done = helm("template", "gp", chart, "--namespace", "glowplug-system", *settings)
        assert done.returncode == 0, done.stderr
        return [body for body in yaml.safe_load_all(done.stdout) if body]

    return objects
