"""Launchers' long polls and health polls against real HTTP servers on loopback."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from glowplug.observe import ReplicaStates, StageSpan
from glowplug.observe.state import parse_state

from .conftest import Cache, container, pod, until


class Launcher:
    """`/state` as the launcher serves it: at once without `after`, else when seq has moved on."""

    def __init__(self) -> None:
        self.seq = 1
        self.phase = "restoring"
        self.asked: list[dict[str, str]] = []
        self._changed = asyncio.Event()

    def become(self, phase: str) -> None:
        self.seq, self.phase = self.seq + 1, phase
        self._changed.set()

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        if request.query.get("after") == str(self.seq):
            self._changed.clear()
            await self._changed.wait()
        ready = 5.0 if self.phase == "ready" else None
        stages = [{"name": "restore", "start": 1.0, "end": 4.0, "hidden": False}]
        body = {"seq": self.seq, "phase": self.phase, "launchedAt": 1.0, "readyAt": ready}
        return web.json_response(body | {"stages": stages, "error": None, "exitCode": None})


@pytest.fixture
async def states(session) -> AsyncIterator[ReplicaStates]:
    cache, changed = Cache(), []
    made = ReplicaStates(cache, session, on_change=changed.append)
    made.cache, made.changed = cache, changed
    task = asyncio.create_task(made.run())
    yield made
    assert not task.done()
    task.cancel()


def key(port: int) -> tuple[str, int, int]:
    return ("uid-m-0", 0, port)


async def test_news_arrives_by_long_poll(states, serve):
    launcher = Launcher()
    server = await serve("/state", launcher.handle)
    states.cache.put(pod(launcher_port=server.port))
    await until(lambda: states.get(key(8000)))
    first = states.get(key(8000))
    assert (first.phase, first.launched_at, first.ready_at) == ("restoring", 1.0, None)
    assert first.stages == (StageSpan("restore", 1.0, 4.0),)
    await until(lambda: len(launcher.asked) == 2)
    assert launcher.asked == [{}, {"after": "1", "timeout": "30"}]
    launcher.become("ready")
    await until(lambda: states.get(key(8000)).phase == "ready")
    assert [replica.pod for replica in states.changed] == ["m-0", "m-0"]


async def test_a_replica_that_serves_is_asked_again_only_when_its_pod_changes(states, serve):
    launcher = Launcher()
    server = await serve("/state", launcher.handle)
    states.cache.put(pod(launcher_port=server.port))
    await until(lambda: len(launcher.asked) == 2)
    launcher.become("ready")
    await until(lambda: len(launcher.asked) == 3)
    states.cache.put(pod(launcher_port=server.port, version=2, ready=True))
    await asyncio.sleep(0.1)
    launcher.become("failed")
    await asyncio.sleep(0.1)
    assert states.get(key(8000)).phase == "ready"
    states.cache.put(pod(launcher_port=server.port, version=3))
    await until(lambda: states.get(key(8000)).phase == "failed")


async def test_a_replica_that_served_before_this_process_is_not_asked(states, serve):
    launcher = Launcher()
    server = await serve("/state", launcher.handle)
    states.cache.put(pod(launcher_port=server.port, ready=True))
    await asyncio.sleep(0.1)
    assert launcher.asked == []
    states.cache.put(pod(launcher_port=server.port, version=2))
    await until(lambda: states.get(key(8000)))


async def test_a_launcher_that_dies_is_unreachable_and_its_successor_is_heard(states, serve):
    launcher = Launcher()
    launcher.become("ready")
    server = await serve("/state", launcher.handle)
    states.cache.put(pod(launcher_port=server.port))
    await until(lambda: states.get(key(8000)))
    await server.stop()
    await until(lambda: not states.get(key(8000)).reachable)
    assert states.get(key(8000)).phase == "ready"
    await serve("/state", Launcher().handle, server.port)
    await until(lambda: states.get(key(8000)).reachable)
    assert states.get(key(8000)).phase == "restoring"


async def test_a_state_that_cannot_be_read_is_no_state(states, serve):
    async def handle(request):
        return web.json_response({"phase": "napping"})

    server = await serve("/state", handle)
    states.cache.put(pod(launcher_port=server.port))
    await asyncio.sleep(0.3)
    assert states.get(key(8000)) is None


async def test_without_a_launcher_the_health_path_is_asked(states, serve):
    answer = {"status": 503}

    async def handle(request):
        return web.Response(status=answer["status"])

    server = await serve("/health", handle)
    states.cache.put(pod(port=server.port, launcher_port=None))
    await until(lambda: states.get(key(server.port)))
    assert states.get(key(server.port)).phase == "starting"
    answer["status"] = 200
    await until(lambda: states.get(key(server.port)).phase == "ready")
    assert states.get(key(server.port)).ready_at is not None


async def test_a_deleted_pod_is_forgotten_and_no_longer_asked(states, serve):
    launcher = Launcher()
    server = await serve("/state", launcher.handle)
    states.cache.put(pod(launcher_port=server.port, containers=(container(),)))
    await until(lambda: len(launcher.asked) == 2)
    states.cache.delete(pod(version=2))
    await until(lambda: states.get(key(8000)) is None)
    launcher.become("ready")
    await asyncio.sleep(0.1)
    assert len(launcher.asked) == 2


async def test_a_callback_that_fails_does_not_end_the_watch(states, serve, monkeypatch):
    monkeypatch.setattr("glowplug.observe.launchers._SETTLED_POLL", 0.01)
    launcher, failures = Launcher(), []

    def broken(replica):
        failures.append(replica)
        raise RuntimeError("callback")

    states._on_change = broken
    server = await serve("/state", launcher.handle)
    states.cache.put(pod(launcher_port=server.port))
    await until(lambda: failures)
    launcher.become("ready")
    await until(lambda: states.get(key(8000)).phase == "ready")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "phase is None"),
        ({"phase": "ready", "readyAt": "soon"}, "readyAt is 'soon'"),
        ({"phase": "ready", "launchedAt": float("inf")}, "launchedAt is inf"),
        ({"phase": "ready", "seq": [7]}, r"seq is \[7\]"),
        ({"phase": "ready", "exitCode": "1"}, "exitCode is '1'"),
    ],
)
def test_unreadable_fields_are_named(body, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_state(body, 0.0)
