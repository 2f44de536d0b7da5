"""The sidecar form: one restore, its story told to whoever connects."""

import json
import socket
from pathlib import Path

import pytest

from .tools import contents, start, wait_for, write_store
from .web import Fault, Web


@pytest.fixture
def digest(web: Web, model: Path) -> str:
    return write_store(model, web.root / "store")


def story(path: Path) -> list[dict]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        with connection.makefile("rb") as lines:
            return [json.loads(line) for line in lines]


def test_it_restores_by_itself_tells_and_restores_again_when_files_are_gone(
    web: Web, digest: str, model: Path, tmp_path: Path
) -> None:
    to, path = tmp_path / "to", tmp_path / "to" / ".sock"
    web.fault = lambda p, first, number: Fault(pause=0.1) if first == 2**24 else None
    sidecar = start(
        "restore", "--from", f"{web.url}/store", "--kind", "snapshot", "--digest", digest,
        "--to", to, "--socket", path,
    )  # fmt: skip
    try:
        wait_for(path.exists, 60)
        first = story(path)
        assert [e["event"] for e in first][-1] == "result", first
        assert {e["event"] for e in first} == {"progress", "file", "result"}
        asked = len(web.requests)
        assert story(path)[-1]["reused"] is True
        assert len(web.requests) == asked
        (to / ".glowplug-restored.json").unlink()
        (to / "model.safetensors").unlink()
        assert story(path)[-1]["reused"] is False
        assert {k: v for k, v in contents(to).items() if k != ".sock"} == contents(model)
        web.fault = lambda p, first, number: Fault(status=403)
        (to / "model.safetensors").unlink()
        assert story(path)[-1]["reason"] == "Forbidden"
        web.fault = lambda p, first, number: None
        assert story(path)[-1]["event"] == "result", "the next launcher is a new chance"
    finally:
        sidecar.terminate()
        sidecar.communicate(timeout=60)
