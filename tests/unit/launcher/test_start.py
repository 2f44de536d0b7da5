"""From launch to ready: what is restored, what is told, where the time went, what may fail."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from .conftest import Launcher, children, wait_for

Launch = Callable[..., Launcher]
MARKER = ".glowplug-restored.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    save_file({"w": np.zeros((1024, 1024), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    path = Path("/dev/shm") / f"glowplug-test-{os.getpid()}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def source(model: Path, mode: str = "process", **more: object) -> dict[str, object]:
    return {"mode": mode, "from": f"file://{model}", "kind": "source", **more}


def test_stages_partition_the_time_from_launch_to_ready(launch: Launch, model: Path) -> None:
    before = time.time()
    launcher = launch(restore=source(model), env={"TEST_START": "0.2", "TEST_LOAD": "1000"})
    launched = time.time()
    launcher.answers()
    launcher.engine("/loaded")
    state = launcher.until("ready")
    stages = [stage for stage in state["stages"] if not stage["hidden"]]
    assert [stage["name"] for stage in stages] == ["restore", "start", "load"]
    assert stages[0]["start"] == state["launchedAt"]
    assert stages[-1]["end"] == state["readyAt"]
    for left, right in pairwise(stages):
        assert left["end"] == right["start"]
    lengths = [stage["end"] - stage["start"] for stage in stages]
    assert sum(lengths) == pytest.approx(state["readyAt"] - state["launchedAt"], abs=1e-4)
    assert lengths[1] >= 0.2
    assert before - 0.05 <= state["launchedAt"] <= launched + 0.05
    assert stages[0]["bytes"] == state["restore"]["bytes"] > 4_000_000
    assert state["restore"]["verified"] == "source"


def test_an_engine_that_accepts_but_hangs_is_ready_the_moment_it_answers(launch: Launch) -> None:
    launcher = launch(env={"TEST_HANG": "2.5"})
    state = launcher.until("ready")
    start, load = state["stages"]
    assert start["name"] == "start"
    assert load["end"] - load["start"] > 1.5, "the hang is part of load"
    awake = float(json.loads(launcher.engine("/env"))["TEST_AWAKE"])
    assert awake <= state["readyAt"] < awake + 20, "not after the next, later probe"


def test_the_long_poll_answers_at_the_change_and_after_its_timeout(launch: Launch) -> None:
    launcher = launch(env={"TEST_START": "0.5"})
    first = launcher.until("starting")
    later = launcher.state(first["seq"], 10)
    assert later["seq"] > first["seq"]
    ready = launcher.until("ready")
    asked = time.monotonic()
    assert launcher.state(ready["seq"], 0.3)["seq"] == ready["seq"]
    assert 0.3 <= time.monotonic() - asked < 30


def test_probes_follow_the_phase(launch: Launch) -> None:
    launcher = launch(env={"TEST_LOAD": "1000"})
    launcher.until("starting")
    launcher.answers()
    assert launcher.get("/healthz")[0] == 200
    assert launcher.get("/readyz")[0] == 503
    launcher.engine("/loaded")
    launcher.until("ready")
    assert launcher.get("/readyz")[0] == 200
    assert launcher.get("/other")[0] == 404
    assert launcher.get("/state?after=x")[0] == 400


def test_the_engine_gets_its_environment_without_credentials(launch: Launch) -> None:
    secrets = {
        "AWS_ACCESS_KEY_ID": "key-id",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "GOOGLE_APPLICATION_CREDENTIALS": "/x",
        "AZURE_STORAGE_ACCOUNT_KEY": "very-secret",
        "HF_TOKEN": "very-secret",
        "GLOWPLUG_STORE_AWS_SECRET_ACCESS_KEY": "very-secret",
    }
    launcher = launch(env={**secrets, "GLOWPLUG_MODEL_DIR": "/models/x", "KEPT": "yes"})
    launcher.until("ready")
    seen = json.loads(launcher.engine("/env"))
    assert seen["KEPT"] == "yes"
    assert seen["GLOWPLUG_MODEL_DIR"] == "/models/x"
    assert not seen.keys() & {*secrets, "GLOWPLUG_LAUNCH"}


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
def test_the_engine_cannot_read_the_launchers_environment(launch: Launch) -> None:
    # the same user without capabilities
    as_in_a_container = ["setpriv", "--bounding-set=-all"] if os.getuid() == 0 else []
    launcher = launch(prefix=as_in_a_container, env={"AWS_SECRET_ACCESS_KEY": "very-secret"})
    launcher.until("ready")
    assert launcher.engine("/parent") == "PermissionError"


def test_a_crash_before_ready_is_told_with_its_code(launch: Launch) -> None:
    launcher = launch(env={"TEST_EXIT": "3"})
    assert launcher.wait() == 3
    said = [json.loads(line) for line in launcher.output().splitlines() if line.startswith("{")]
    assert said[-1]["exitCode"] == 3
    assert "before it was ready" in said[-1]["error"]


def test_whoever_polls_learns_of_a_crash(launch: Launch) -> None:
    launcher = launch(env={"TEST_START": "1", "TEST_EXIT": "0"})
    assert launcher.wait() == 0
    launcher = launch()
    ready = launcher.until("ready")
    with ThreadPoolExecutor() as pool:
        polled = pool.submit(launcher.state, ready["seq"], 60)
        time.sleep(0.2)
        with pytest.raises((OSError, HTTPException)):
            launcher.engine("/crash")
        state = polled.result(60)
    assert state["phase"] == "failed"
    assert state["exitCode"] == 7
    assert "while it was serving" in state["error"]
    assert launcher.wait() == 7


def test_a_start_that_takes_too_long_fails_with_a_sentence(launch: Launch) -> None:
    launcher = launch(startTimeout=1, env={"TEST_LOAD": "1000"})
    launcher.until("starting")
    (engine,) = children(launcher.process.pid)
    state = launcher.until("failed")
    assert "within 1 s" in state["error"]
    assert "/health" in state["error"]
    assert launcher.wait() == 1
    assert not Path(f"/proc/{engine}").exists(), "the engine was ended, not left behind"


def test_a_command_that_does_not_exist_is_named(launch: Launch) -> None:
    launcher = launch(command=["/no/such/engine"])
    assert launcher.wait() == 1
    assert "'/no/such/engine' cannot be started" in launcher.output()


def test_a_restore_that_fails_is_told_in_the_snapshotters_words(
    launch: Launch, tmp_path: Path
) -> None:
    launcher = launch(restore=source(tmp_path / "absent"))
    state = launcher.until("failed")
    assert state["error"].startswith("NotFound: ")
    assert str(tmp_path / "absent") in state["error"]
    assert launcher.wait() == 1
    assert "engine starts" not in launcher.output()


def test_a_restarted_container_uses_the_files_that_are_there(
    launch: Launch, model: Path, tmp_path: Path
) -> None:
    first = launch(restore=source(model, unlinkAfterLoad=True))
    first.until("ready")
    first.process.terminate()
    first.wait()
    assert (tmp_path / "model" / "model.safetensors").exists(), "only tmpfs is emptied"
    state = launch(restore=source(model)).until("ready")
    assert state["restore"]["reused"] is True


def test_loaded_weights_leave_tmpfs_and_a_restarted_container_restores_again(
    launch: Launch, model: Path, tmpfs: Path
) -> None:
    first = launch(restore=source(model, unlinkAfterLoad=True), modelDir=str(tmpfs))
    first.until("ready")
    wait_for(lambda: not (tmpfs / "model.safetensors").exists())
    assert sorted(p.name for p in tmpfs.iterdir()) == ["config.json"]
    first.process.terminate()
    first.wait()
    state = launch(restore=source(model), modelDir=str(tmpfs)).until("ready")
    assert state["restore"]["reused"] is False
    assert (tmpfs / "model.safetensors").exists()


@contextmanager
def sidecar(model: Path, to: Path, path: Path) -> Iterator[None]:
    """The restore in a process of its own, as in a second container."""
    process = subprocess.Popen(
        [
            sys.executable, "-m", "glowplug_snapshotter", "restore", "--from", f"file://{model}",
            "--kind", "source", "--to", to, "--socket", path,
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def test_a_sidecar_that_comes_late_is_waited_for(
    launch: Launch, model: Path, tmp_path: Path
) -> None:
    to, path = tmp_path / "model", tmp_path / "sock"
    launcher = launch(restore=source(model, "sidecar", socket=str(path)))
    launcher.until("restoring")
    time.sleep(0.3)
    with sidecar(model, to, path):
        state = launcher.until("ready")
    assert state["restore"]["verified"] == "source"
    assert (to / "model.safetensors").exists()
    assert to.stat().st_mode & 0o777 == 0o777, "an engine of another user may unlink its weights"


def test_what_a_sidecar_did_before_the_launch_is_told_as_hidden(
    launch: Launch, model: Path, tmp_path: Path
) -> None:
    to, path = tmp_path / "model", tmp_path / "sock"
    with sidecar(model, to, path):
        wait_for((to / MARKER).exists)
        state = launch(restore=source(model, "sidecar", socket=str(path))).until("ready")
    (hidden,) = [stage for stage in state["stages"] if stage["hidden"]]
    assert hidden["name"] == "restore"
    assert hidden["start"] < hidden["end"] <= state["launchedAt"]
    assert hidden["bytes"] > 4_000_000
    critical = [stage for stage in state["stages"] if not stage["hidden"]]
    assert critical[0]["start"] == state["launchedAt"]


def test_orphans_are_reaped(launch: Launch) -> None:
    launcher = launch()
    launcher.until("ready")
    engine = set(children(launcher.process.pid))
    assert len(engine) == 1
    for _ in range(5):
        launcher.engine("/orphan")
    wait_for(lambda: set(children(launcher.process.pid)) == engine)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not set"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "model"),
        ('{"model": "m", "port": "x"}', "port"),
    ],
)
def test_a_bad_configuration_is_named(pyz: Path, text: str, word: str) -> None:
    env = {**os.environ, "GLOWPLUG_LAUNCH": text}
    command = [sys.executable, pyz, "run"]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert word in run.stderr
