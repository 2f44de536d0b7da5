"""No write without the lease; every write is counted by how it ended."""

from typing import Any

import pytest

from glowplug.act.events import QUIET_S, Recorder
from glowplug.act.refs import Ref
from glowplug.act.writer import NotLeaderError, Writer
from glowplug.kube import PODS, Forbidden

REF = Ref("ModelDeployment", "ns", "m", "u1")


class Client:
    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.error: Exception | None = None

    async def create(self, res: Any, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.bodies.append(body)
        return body

    async def delete(self, *_: Any, **__: Any) -> None:
        return None


class Bench:
    """A writer whose lease can be lost, and what it has logged."""

    def __init__(self) -> None:
        self.held = True
        self.logged: list[tuple[str, str, str]] = []
        self.client = Client()
        self.now = 0.0
        self.writer = Writer(
            self.client,  # type: ignore[arg-type]
            lambda: self.held,
            lambda verb, resource, outcome: self.logged.append((verb, resource, outcome)),
        )
        self.recorder = Recorder(self.writer, "me", lambda: self.now)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_leader_that_lost_its_lease_writes_nothing(bench: Bench) -> None:
    bench.held = False
    with pytest.raises(NotLeaderError):
        await bench.writer.create(PODS, {})
    with pytest.raises(NotLeaderError):
        await bench.writer.delete(PODS, "p", "ns", uid="u")
    assert bench.client.bodies == []
    assert bench.logged == []


async def test_writes_are_counted_by_outcome(bench: Bench) -> None:
    await bench.writer.create(PODS, {})
    await bench.writer.create(PODS, {}, dry_run=True)
    bench.client.error = Forbidden(403, "Forbidden", "no")
    with pytest.raises(Forbidden):
        await bench.writer.create(PODS, {})
    assert bench.logged == [
        ("create", "pods", "ok"),
        ("dry-run", "pods", "ok"),
        ("create", "pods", "Forbidden"),
    ]


async def test_an_event_is_said_once_in_a_while(bench: Bench) -> None:
    await bench.recorder.warning(REF, "Broken", "It broke.")
    await bench.recorder.warning(REF, "Broken", "It broke.")
    await bench.recorder.warning(REF, "Broken", "It broke differently.")
    assert [body["note"] for body in bench.client.bodies] == ["It broke.", "It broke differently."]
    bench.now += QUIET_S
    await bench.recorder.warning(REF, "Broken", "It broke.")
    assert len(bench.client.bodies) == 3
    assert len({body["metadata"]["name"] for body in bench.client.bodies}) == 3


async def test_an_event_that_is_refused_stops_nothing(bench: Bench) -> None:
    bench.client.error = Forbidden(403, "Forbidden", "no")
    await bench.recorder.normal(REF, "Fine", "All is well.")


async def test_the_form_of_an_event(bench: Bench) -> None:
    bench.now = 1_800_000_000.25
    await bench.recorder.normal(REF, "Scaled", "x" * 3000, "Scale")
    (body,) = bench.client.bodies
    assert body["regarding"]["name"] == "m"
    assert body["metadata"]["namespace"] == "ns"
    assert body["eventTime"] == "2027-01-15T08:00:00.250000Z"
    assert len(body["note"]) == 1024
