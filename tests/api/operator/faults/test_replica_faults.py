"""What can happen to a replica: each is said of its own model, and costs no writes while it lasts.

All faults happen at the same time, each to the only replica of a model of its own.
"""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from .conftest import writes_within

BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}


@dataclass(frozen=True)
class Fault:
    """What kubelet writes of the engine's container; what the condition and the event must say."""

    name: str
    reason: str
    told: str
    state: dict[str, Any] = field(default_factory=lambda: BACK_OFF)
    ended: dict[str, Any] | None = None

    def container(self, restarts: int) -> dict[str, Any]:
        last = {"lastState": {"terminated": self.ended}} if self.ended else {}
        status = {"name": "engine", "image": "engine:1", "imageID": "", "ready": False}
        restarts = restarts if self.ended else 0
        return {**status, "restartCount": restarts, "state": self.state, **last}


def waits(name: str, reason: str, told: str, why: str, message: str) -> Fault:
    return Fault(name, reason, told, {"waiting": {"reason": why, "message": message}})


def ends(name: str, why: str, told: str, /, **terminated: Any) -> Fault:
    return Fault(name, why, told, ended={"exitCode": 1, **terminated})


def restore(name: str, why: str, message: str) -> Fault:
    """The snapshotter's last line, in the termination message."""
    line = json.dumps({"event": "error", "reason": why, "message": message})
    return ends(name, "RestoreFailed", message, message=line)


FAULTS = [
    waits(
        "no-image",
        "ImagePullFailed",
        "Check engine.image",
        "ImagePullBackOff",
        'Back-off pulling image "engine:1": not found',
    ),
    waits(
        "no-secret",
        "ContainerConfigError",
        'secret "read" not found',
        "CreateContainerConfigError",
        'secret "read" not found',
    ),
    ends("exits", "EngineExited", "CUDA is unhappy", message="CUDA is unhappy", exitCode=3),
    ends("eats", "OutOfMemory", "engine.resources.limits.memory", exitCode=137, reason="OOMKilled"),
    restore("no-bucket", "NotFound", "bucket models does not exist at http://s3:8333"),
    restore("no-key", "NotFound", "s3://models/m/config.json does not exist"),
    restore("no-right", "Forbidden", "s3://models/m refused the key that Secret read holds"),
    restore("other-bytes", "Corrupt", "model.safetensors chunk 3: crc32c does not match"),
]
"""Sentences of the snapshotter are its own tests' affair; here they must arrive."""


async def test_each_fault_is_its_own_models(lives, neighbour, kubelet, models, eventually, warned):
    fate = await lives()
    await neighbour.serve()
    for fault in FAULTS:
        await models.create(fault.name, replicas=1)

    async def all_have_pods():
        return len(await kubelet.pods()) == len(FAULTS) + 1

    await eventually(all_have_pods)
    before = await neighbour.versions()
    await suffer(kubelet, restarts=1)
    for fault in FAULTS:
        ready = await models.becomes(fault.name, "Ready", "False", fault.reason)
        assert fault.told in ready["message"]
        assert f"{fault.name}-" in ready["message"], "the Pod is named"
        assert fault.told in await warned(fault.name, fault.reason)
    await asyncio.sleep(1.0)

    for restarts in range(2, 6):
        await suffer(kubelet, restarts=restarts)
        assert await writes_within(fate, 0.7) == [], "a restart is no transition"
    assert await neighbour.versions() == before
    assert len(await kubelet.pods()) == len(FAULTS) + 1, "kubelet restarts; nothing is replaced"


async def suffer(kubelet, restarts: int) -> None:
    for fault in FAULTS:
        (pod,) = await kubelet.pods(model=fault.name)
        container = fault.container(restarts)
        await kubelet.status(pod, phase="Pending", containerStatuses=[container])


@pytest.fixture
async def launcher(gateway_ip):
    """A launcher whose restore has failed, at its port on the address that the Pod will have."""

    async def state(request: web.Request) -> web.Response:
        if "after" in request.query:
            await asyncio.sleep(float(request.query["timeout"]))
        told = "the restore gave up: s3://models/m/config.json does not exist"
        return web.json_response({"phase": "failed", "seq": 7, "error": told, "exitCode": 1})

    app = web.Application()
    app.router.add_get("/state", state)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, gateway_ip, 9410).start()
    yield gateway_ip
    await runner.cleanup()


async def test_what_the_launcher_says_is_said(
    lives, neighbour, launcher, kubelet, models, eventually, warned
):
    fate = await lives()
    await neighbour.serve()
    await models.create("m", replicas=1)
    (pod,) = await eventually(lambda: kubelet.pods(model="m"))
    before = await neighbour.versions()
    await kubelet.status(pod, phase="Running", podIP=launcher, podIPs=[{"ip": launcher}])
    ready = await models.becomes("m", "Ready", "False", "EngineFailed")
    assert "s3://models/m/config.json does not exist" in ready["message"]
    assert "config.json" in await warned("m", "EngineFailed")
    await asyncio.sleep(1.0)
    assert await writes_within(fate, 2.0) == []
    assert await neighbour.versions() == before


async def test_one_of_two_ended_and_runs_again_at_once(lives, kubelet, models, eventually, warned):
    """No condition turns, for the other one serves; its sentence and an event say it."""
    fate = await lives()
    await models.create("m", replicas=2)

    async def both():
        pods = await kubelet.pods(model="m")
        return pods if len(pods) == 2 else None

    failed, _ = await eventually(both)
    await kubelet.serve_all(model="m")

    async def says(count: int):
        ready = await models.condition("m", "Ready")
        return ready if f"{count} of 2 replicas serve" in ready.get("message", "") else None

    well = await eventually(lambda: says(2))
    line = {"logger": "glowplug-launcher", "event": "failed", "error": "The engine hangs."}
    ended = {"terminated": {"exitCode": 1, "message": f"its log\n{json.dumps(line)}"}}
    engine = {"name": "engine", "image": "engine:1", "imageID": "", "ready": False}
    engine |= {"restartCount": 1, "lastState": ended, "state": {"running": {}}}
    unready = [{"type": "Ready", "status": "False"}]
    await kubelet.status(failed, phase="Running", conditions=unready, containerStatuses=[engine])
    ready = await eventually(lambda: says(1))
    assert (ready["status"], ready["lastTransitionTime"]) == ("True", well["lastTransitionTime"])
    assert failed["metadata"]["name"] in ready["message"]
    assert "The engine hangs" in ready["message"]
    assert "The engine hangs" in await warned("m", "EngineFailed")
    await asyncio.sleep(1.0)
    assert await writes_within(fate, 2.0) == []


async def test_pods_that_fail_at_once_are_replaced_less_and_less_often(
    lives, neighbour, kubelet, models, eventually, warned
):
    fate = await lives()
    await neighbour.serve()
    await models.create("m", replicas=1)
    before = await neighbour.versions()
    seen: set[str] = set()
    async with asyncio.timeout(60.0):
        while len(seen) < 3:
            for pod in await kubelet.pods(model="m"):
                seen.add(pod["metadata"]["uid"])
                await kubelet.status(pod, phase="Failed", reason="Evicted")
            await asyncio.sleep(0.05)
    assert "has failed" in await warned("m", "PodFailed")
    created = [w for w in await writes_within(fate, 5.0) if w.startswith("POST") and "/pods" in w]
    assert len(created) <= 1, "the third one waits 8 s and more"
    assert await neighbour.versions() == before
