"""A real garbage collector, since what a deleted model leaves behind is its affair."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.build import ensure_binaries
from cluster.config import paths
from cluster.processes import Daemon, stop


@pytest.fixture(autouse=True)
def _kopf_finds_it(apiserver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(apiserver))


@pytest.fixture(scope="module")
def garbage_collector(apiserver: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """kube-controller-manager with this one controller; it finds our kinds within 30 s."""
    directory = tmp_path_factory.mktemp("garbage-collector")
    flags = {
        "kubeconfig": apiserver,
        "controllers": "garbage-collector-controller",
        "leader-elect": "false",
        "secure-port": 0,
    }
    program = ensure_binaries(paths()) / "kube-controller-manager"
    argv = [str(program), *(f"--{name}={value}" for name, value in flags.items())]
    daemon = Daemon("garbage-collector", argv, directory)
    daemon.start()
    yield
    stop(daemon.pidfile)
