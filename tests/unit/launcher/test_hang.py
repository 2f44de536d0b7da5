"""An engine that was ready and hangs: found, said, ended; one that is only slow is left alone."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from .conftest import Launcher, children, wait_for

Launch = Callable[..., Launcher]


def stop(launcher: Launcher) -> None:
    (engine,) = children(launcher.process.pid)
    os.kill(engine, signal.SIGSTOP)


def get_sick(launcher: Launcher) -> None:
    launcher.engine("/sick=inf")


@pytest.mark.parametrize(
    ("fault", "met"), [(stop, "no answer"), (get_sick, "status 503")], ids=["silent", "sick"]
)
def test_an_engine_that_hangs_is_ended_with_a_sentence(
    launch: Launch, fault: Callable[[Launcher], None], met: str
) -> None:
    launcher = launch(hangTimeout=3)
    launcher.until("ready")
    fault(launcher)
    state = launcher.until("failed")
    assert "hangs" in state["error"]
    assert f"for 3 s on port {launcher.engine_port} (/health: {met})" in state["error"]
    assert launcher.get("/readyz")[0] == 503
    assert launcher.wait(30) == 1
    assert children(launcher.process.pid) == []


def test_a_moment_of_sickness_is_no_hang(launch: Launch) -> None:
    launcher = launch(hangTimeout=1.5)
    launcher.until("ready")
    for _ in range(2):
        before = int(launcher.engine("/asked"))
        launcher.engine("/sick=2")  # three in a row would be a hang
        wait_for(lambda: int(launcher.engine("/asked")) >= before + 3)  # noqa: B023
    assert launcher.state()["phase"] == "ready"


def test_a_drain_has_its_own_limit(launch: Launch) -> None:
    launcher = launch(hangTimeout=1.5, drainTimeout=1000)
    launcher.until("ready")
    drain = launcher.drain()
    launcher.until("draining")
    before = int(launcher.engine("/asked"))
    launcher.engine("/sick=inf")
    wait_for(lambda: int(launcher.engine("/asked")) >= before + 3)
    time.sleep(1)  # more than the half second after which the launcher draws its conclusion
    assert launcher.state()["phase"] == "draining"
    assert drain.wait(60) == 0
    launcher.process.terminate()
    assert launcher.wait() == 0
