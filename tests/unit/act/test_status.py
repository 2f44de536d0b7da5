"""Status is written on a transition at once, otherwise once a minute, and never without need."""

from typing import Any

import pytest

from glowplug.act.refs import Ref
from glowplug.act.status import CALM_S, StatusWriter, is_transition, rounded, within
from glowplug.kube import MODELDEPLOYMENTS, Conflict, NotFound

REF = Ref("ModelDeployment", "ns", "m", "u1")


class Clock:
    now = 500.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Takes the place of the guarded writer: keeps what was applied."""

    def __init__(self) -> None:
        self.written: list[dict[str, Any]] = []
        self.error: Exception | None = None

    async def apply(self, res: Any, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.written.append(body["status"])
        return body


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def status(server: Server, clock: Clock) -> StatusWriter:
    return StatusWriter(server, clock)  # type: ignore[arg-type]


async def write(status: StatusWriter, before: dict[str, Any], after: dict[str, Any]) -> bool:
    return await status.write(MODELDEPLOYMENTS, REF, before, after) is not None


async def test_nothing_changed(status: StatusWriter) -> None:
    assert not await write(status, {"replicas": 1}, {"replicas": 1})


async def test_a_transition_is_written_at_once(status: StatusWriter) -> None:
    assert await write(status, {}, {"replicas": 1})
    assert await write(status, {"replicas": 1}, {"replicas": 2})


async def test_anything_else_waits_a_minute(status: StatusWriter, clock: Clock) -> None:
    assert await write(status, {}, {"cost": {"dollarsPerHour": 1.0}})
    before = {"cost": {"dollarsPerHour": 1.0}}
    assert not await write(status, before, {"cost": {"dollarsPerHour": 2.0}})
    clock.now += CALM_S
    assert await write(status, before, {"cost": {"dollarsPerHour": 2.0}})


async def test_what_others_added_is_no_reason_to_write_again(
    status: StatusWriter, clock: Clock
) -> None:
    await write(status, {}, {"replicas": 1})
    clock.now += CALM_S
    assert not await write(status, {"replicas": 1, "theirs": "x"}, {"replicas": 1})


async def test_what_somebody_took_away_is_written_again(status: StatusWriter, clock: Clock) -> None:
    await write(status, {}, {"replicas": 1})
    assert await write(status, {"replicas": 0}, {"replicas": 1})


async def test_numbers_are_rounded_before_they_are_compared(status: StatusWriter) -> None:
    assert not await write(status, {"cost": 1.23}, {"cost": 1.2349})


@pytest.mark.parametrize("error", [NotFound(404, "", ""), Conflict(409, "", "")])
async def test_an_object_that_is_gone_is_no_error(
    status: StatusWriter, server: Server, error: Exception
) -> None:
    server.error = error
    assert not await write(status, {}, {"replicas": 1})


def condition(**changes: Any) -> dict[str, Any]:
    base = {"type": "Ready", "status": "True", "reason": "Serving", "message": "1 of 1"}
    return {"conditions": [base | changes]}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (condition(), condition(message="other words"), False),
        (
            condition(type="CapacityAvailable", message="1 of 3 replicas have no node: busy"),
            condition(type="CapacityAvailable", message="1 of 3 replicas have no node: very busy"),
            False,
        ),
        (
            condition(type="CapacityAvailable", message="1 of 3 replicas have no node: busy"),
            condition(type="CapacityAvailable", message="2 of 3 replicas have no node: busy"),
            True,
        ),
        (condition(), condition(status="False"), True),
        (condition(), condition(reason="Starting"), True),
        (condition(), condition(observedGeneration=2), True),
        ({"decision": {"desired": 1}}, {"decision": {"desired": 2}}, True),
        ({"decision": {"reason": "a"}}, {"decision": {"reason": "b"}}, False),
        ({"tiers": {"hot": 1}}, {"tiers": {"hot": 2}}, True),
        ({}, {"coldStart": {"last": {"at": "now"}}}, True),
        ({"cost": 1}, {"cost": 2}, False),
    ],
)
def test_what_is_a_transition(
    before: dict[str, Any], after: dict[str, Any], expected: bool
) -> None:
    assert is_transition(before, after) is expected


def test_rounding_goes_all_the_way_down() -> None:
    assert rounded({"a": [1.234, {"b": 5.678}], "c": 3}) == {"a": [1.23, {"b": 5.68}], "c": 3}


def test_within() -> None:
    assert within({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": 3})
    assert not within({"a": {"b": 1}}, {"a": {"b": 2}})
    assert not within({"a": 1}, {})
