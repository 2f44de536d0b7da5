"""Operator, gateways and engines killed at random moments, by seed: the same end, no request lost.

A client here does what the OpenAI libraries do: it sends a request again whose connection broke
before any of the answer came. Three seeds; `make soak` runs twenty.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from stack import processes
from stack.ask import Answer, ask
from stack.stack import Stack

from .scene import PATIENCE_S, TIMEOUT_S, Json, is_serving

pytestmark = pytest.mark.timeout(TIMEOUT_S)

SEEDS = range(20 if "GLOWPLUG_SOAK" in os.environ else 3)
KILLS = 5
CLIENTS = 3
TRIES = 240  # a minute: a machine without time has no gateway for some seconds
END = {
    "Ready": "Serving",
    "SnapshotReady": "Disabled",
    "MetricsAvailable": "Fresh",
    "CapacityAvailable": "Sufficient",
    "ScalingLimited": "WithinLimits",
    "TemplateValid": "Accepted",
}
COMMANDS = {"operator": "glowplug-operator", "gateway": "glowplug-gateway"}


@pytest.fixture(scope="module")
def two_gateways(installed: Stack) -> Iterator[None]:
    _scale_gateways(installed, 2)
    yield
    _scale_gateways(installed, 1)


@pytest.mark.usefixtures("two_gateways")
@pytest.mark.parametrize("seed", SEEDS)
async def test_the_end_is_the_same_and_no_request_is_lost(stack: Stack, seed: int) -> None:
    await _bury(stack)
    chance = random.Random(seed)
    name = f"killed-{seed}"
    body = stack.smollm2(name)
    body["spec"]["model"]["snapshot"] = {"policy": "Never"}
    body["spec"]["replicas"] = 2
    answers: list[Answer] = []
    stop = asyncio.Event()
    stack.deploy(body)
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(_client(stack, name, answers, stop))
        try:
            killed = []
            while len(killed) < KILLS:
                await asyncio.sleep(chance.uniform(0.3, 3.0))
                what = chance.choice(["operator", "gateway", "engine"])
                if await asyncio.to_thread(_kill, stack, name, what, chance):
                    killed.append(what)
            await asyncio.sleep(3)  # or the last kill may not have been noticed by anybody
            await stack.until(lambda: _is_whole(stack, name), PATIENCE_S)
        finally:
            stop.set()
    print(f"seed {seed}: killed {', '.join(killed)}; {len(answers)} requests")

    assert answers
    assert [one for one in answers if not (one.finished or one.text)] == []
    labels = [pod["metadata"]["labels"] for pod in stack.pods(name)]
    assert sorted(one["glowplug.dev/slot"] for one in labels) == ["0", "1"]
    assert {one["glowplug.dev/state"] for one in labels} == {"active"}
    await stack.until(lambda: _reasons(stack, name) == END, 60)


def _is_whole(stack: Stack, name: str) -> bool:
    """Two replicas serve, by the operator's word and by kubelet's."""
    return is_serving(stack, name, 2) and all(_is_ready(pod) for pod in stack.pods(name))


def _reasons(stack: Stack, name: str) -> dict[str, str]:
    return {c["type"]: c["reason"] for c in stack.status(name).get("conditions", ())}


async def _client(stack: Stack, name: str, answers: list[Answer], stop: asyncio.Event) -> None:
    while not stop.is_set():
        answers.append(await _persistent(stack, name))


async def _persistent(stack: Stack, name: str) -> Answer:
    """Ask until an answer begins; one that breaks off after that is returned as far as it came."""
    problem = ""
    for _ in range(TRIES):
        seen: list[str] = []
        try:
            return await ask(
                stack.gateway_url, name, "Say hello.", max_tokens=8, on_token=seen.append
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = repr(error)
            if seen:
                return Answer(status=200, text="".join(seen), error=problem)
            await asyncio.sleep(0.25)
    return Answer(error=f"no answer in {TRIES} tries: {problem}")


def _kill(stack: Stack, name: str, what: str, chance: random.Random) -> bool:
    """SIGKILL one of them, if there is one that may be killed now."""
    if what == "engine":
        pods, word = stack.pods(name), "/engine/server.py"
    else:
        pods, word = _component(stack, what), COMMANDS[what]
        if what == "gateway" and sum(_lives(pod, word) for pod in pods) < 2:
            return False  # another one must live
    chance.shuffle(pods)
    for pod in pods:
        pids = processes.of_pod(pod["metadata"]["uid"], word)
        if pids:
            processes.kill(pids)
            return True
    return False


def _component(stack: Stack, name: str) -> list[Json]:
    return stack.find("pods", f"app.kubernetes.io/component={name}", stack.system)


def _is_ready(pod: Json) -> bool:
    conditions: list[dict[str, Any]] = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _lives(pod: Json, word: str) -> bool:
    """Whether it serves and has not just been killed, which its Ready tells a second later."""
    return _is_ready(pod) and bool(processes.of_pod(pod["metadata"]["uid"], word))


async def _bury(stack: Stack) -> None:
    """Replace Pods that were killed before: kubelet would let them wait ever longer."""
    killed = {
        pod["metadata"]["name"]
        for name in COMMANDS
        for pod in _component(stack, name)
        if any(one["restartCount"] for one in pod["status"].get("containerStatuses", ()))
    }
    if not killed:
        return
    stack.cluster.kubectl("-n", stack.system, "delete", "pod", "--wait=false", *killed)
    await stack.until(lambda: not killed & _running(stack), PATIENCE_S)
    for name in COMMANDS:
        _wait(stack, name)


def _running(stack: Stack) -> set[str]:
    """Names of the Pods of all components, terminating ones included."""
    return {pod["metadata"]["name"] for name in COMMANDS for pod in _component(stack, name)}


def _scale_gateways(stack: Stack, count: int) -> None:
    words = ("scale", "deployment", "glowplug-gateway", f"--replicas={count}")
    stack.cluster.kubectl("-n", stack.system, *words)
    _wait(stack, "gateway")


def _wait(stack: Stack, name: str) -> None:
    words = ("rollout", "status", "deployment", f"glowplug-{name}", "--timeout=110s")
    stack.cluster.kubectl("-n", stack.system, *words)
