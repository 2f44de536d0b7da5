"""An engine that was ready and hangs: found, said, ended; one that is only slow is left alone."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from .conftest import Launcher, children

Launch = Callable[..., Launcher]


def stop(launcher: Launcher) -> None:
    (engine,) = children(launcher.process.pid)
    os.kill(engine, signal.SIGSTOP)


def get_sick(launcher: Launcher) -> None:
    launcher.engine("/sick")


@pytest.mark.parametrize(
    ("fault", "met"), [(stop, "no answer"), (get_sick, "status 503")], ids=["silent", "sick"]
)
def test_an_engine_that_hangs_is_ended_with_a_sentence(
    launch: Launch, fault: Callable[[Launcher], None], met: str
) -> None:
    launcher = launch(hangTimeout=1.5)
    launcher.until("ready")
    fault(launcher)
    state = launcher.until("failed")
    assert "hangs" in state["error"]
    assert f"for 1.5 s on port {launcher.engine_port} (/health: {met})" in state["error"]
    assert launcher.get("/readyz")[0] == 503
    assert launcher.wait(30) == 1
    assert children(launcher.process.pid) == []


def test_a_moment_of_sickness_is_no_hang(launch: Launch) -> None:
    launcher = launch(hangTimeout=6)  # looks every 2 s, so that less than 6 s are never 3 failures
    launcher.until("ready")
    for _ in range(2):
        launcher.engine("/sick")
        time.sleep(2.5)
        launcher.engine("/well")
        time.sleep(2.5)
    assert launcher.state()["phase"] == "ready"


def test_a_drain_has_its_own_limit(launch: Launch) -> None:
    launcher = launch(hangTimeout=0.6, drainTimeout=3)
    launcher.until("ready")
    launcher.engine("/sick")
    drain = launcher.drain()
    launcher.until("draining")
    assert drain.wait(10) == 0
    time.sleep(1.5)
    assert launcher.state()["phase"] == "draining"
    launcher.process.terminate()
    assert launcher.wait() == 0
