"""Leaving: drain, signals, exit codes."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .conftest import Launcher, children, wait_for

Launch = Callable[..., Launcher]


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    with ThreadPoolExecutor() as threads:
        yield threads


def busy(launcher: Launcher, pool: ThreadPoolExecutor) -> Future[str]:
    """Send a request that lasts until /release; return once it is in the engine."""
    work = pool.submit(launcher.engine, "/busy")
    wait_for(lambda: "} 1.0" in launcher.engine("/metrics"))
    return work


@pytest.mark.parametrize("metrics", [["run"], []], ids=["by metrics", "by connections"])
def test_the_pre_stop_waits_for_requests_in_flight(
    launch: Launch, pool: ThreadPoolExecutor, metrics: list[str]
) -> None:
    launcher = launch(inflightMetrics=metrics)
    launcher.until("ready")
    work = busy(launcher, pool)
    pre_stop = launcher.drain()
    state = launcher.until("draining")
    assert state["phase"] == "draining"
    assert launcher.get("/readyz")[0] == 503
    assert launcher.get("/healthz")[0] == 200
    assert pre_stop.poll() is None
    assert not work.done()
    launcher.engine("/release")
    assert work.result() == "done"
    assert pre_stop.wait(60) == 0, pre_stop.stderr.read()
    launcher.process.terminate()
    assert launcher.wait() == 0


def test_a_drain_that_takes_too_long_gives_up(launch: Launch, pool: ThreadPoolExecutor) -> None:
    launcher = launch(drainTimeout=1)
    launcher.until("ready")
    work = busy(launcher, pool)
    asked = time.monotonic()
    assert launcher.drain().wait(60) == 1
    assert time.monotonic() - asked >= 1
    assert not work.done()
    launcher.engine("/release")


def test_sigterm_without_a_pre_stop_drains_first(launch: Launch, pool: ThreadPoolExecutor) -> None:
    launcher = launch(env={"TEST_STOP_CODE": "5"})
    launcher.until("ready")
    work = busy(launcher, pool)
    launcher.process.terminate()
    launcher.until("draining")
    launcher.engine("/release")
    assert launcher.wait() == 5
    assert work.result() == "done"


def test_sigterm_during_a_drain_ends_it(launch: Launch, pool: ThreadPoolExecutor) -> None:
    launcher = launch(drainTimeout=1000)
    launcher.until("ready")
    work = busy(launcher, pool)
    pre_stop = launcher.drain()
    launcher.until("draining")
    launcher.process.terminate()
    assert launcher.wait() == 0
    assert pre_stop.wait(60) in (0, 1)
    assert work.exception() is not None


def test_sigterm_while_starting_ends_the_engine_at_once(launch: Launch) -> None:
    launcher = launch(startTimeout=1000, drainTimeout=1000, env={"TEST_LOAD": "1000"})
    launcher.answers()
    launcher.process.terminate()
    assert launcher.wait() == 0
    assert "failed" not in launcher.output()


def test_sigterm_while_restoring_ends_the_restore(launch: Launch, tmp_path: Path) -> None:
    slow = "http://127.0.0.1:9/nothing-listens-here"  # refused, so retried with backoff
    launcher = launch(restore={"mode": "process", "from": slow, "kind": "source"})
    launcher.until("restoring")
    launcher.process.terminate()
    assert launcher.wait() == 143
    assert not (tmp_path / "model" / ".glowplug-partial").exists()


def test_other_signals_are_the_engines(launch: Launch) -> None:
    launcher = launch()
    launcher.until("ready")
    launcher.process.send_signal(signal.SIGUSR1)
    launcher.says("engine got SIGUSR1")
    launcher.process.terminate()
    assert launcher.wait() == 0


def test_an_engine_that_a_signal_kills_gives_the_shells_exit_code(launch: Launch) -> None:
    launcher = launch()
    launcher.until("ready")
    (engine,) = children(launcher.process.pid)
    os.kill(engine, signal.SIGKILL)
    assert launcher.wait() == 128 + signal.SIGKILL


def test_two_pre_stops_are_both_answered(launch: Launch) -> None:
    launcher = launch()
    launcher.until("ready")
    both = [launcher.drain(), launcher.drain()]
    assert [each.wait(60) for each in both] == [0, 0]
    assert launcher.drain().wait(60) == 0


def test_nobody_to_drain_is_said(launch: Launch) -> None:
    launcher = launch(env={"TEST_EXIT": "0"})
    launcher.wait()
    pre_stop = launcher.drain()
    assert pre_stop.wait(60) == 1
    assert b"did not answer" in pre_stop.stderr.read()


@pytest.mark.parametrize("slow", ["TEST_START", "TEST_HANG", "TEST_LOAD"])
def test_an_engine_that_never_served_is_drained_at_once(launch: Launch, slow: str) -> None:
    launcher = launch(startTimeout=1000, drainTimeout=1000, env={slow: "1000"})
    launcher.until("starting")
    if slow == "TEST_LOAD":
        launcher.answers()
    assert launcher.drain().wait(60) == 0
    launcher.process.terminate()
    assert launcher.wait() in (0, 143)
