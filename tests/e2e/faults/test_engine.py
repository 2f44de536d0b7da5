"""An engine that dies, or hangs, with requests in it: what its clients and its events say."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from stack import processes
from stack.ask import Answer, ask, load
from stack.stack import Stack

from .scene import (
    PATIENCE_S,
    TIMEOUT_S,
    Json,
    is_serving,
    launch_of,
    neighbour,
    warnings,
    with_launch,
)

pytestmark = pytest.mark.timeout(TIMEOUT_S)

PAIR = "pair"
HANG_TIMEOUT_S = 15  # a minute in life


async def test_its_requests_end_in_words_or_elsewhere_and_it_comes_back(stack: Stack) -> None:
    async with neighbour(stack) as well:
        stack.deploy(_pair(stack, launch_of(well)))
        await stack.until(lambda: is_serving(stack, PAIR, 2), PATIENCE_S)
        first, second = stack.pods(PAIR)
        stop = asyncio.Event()
        loading = asyncio.create_task(
            load(stack.gateway_url, PAIR, clients=2, seconds=600, stop=stop, max_tokens=8)
        )
        try:
            streams = await _streams(stack, lambda: processes.kill(_engines(first)))
            _are_whole_or_explained(streams)
            assert any(answer.error for answer in streams), "half of them were in the dead engine"
            [note] = await stack.until(lambda: warnings(stack, PAIR, "EngineFailed"), 90)
            assert f"Pod {first['metadata']['name']}" in note
            assert "The engine exited with code 137 while it was serving" in note
            await stack.until(lambda: _restarts(stack, first) == 1, PATIENCE_S)
            await stack.until(lambda: is_serving(stack, PAIR, 2), PATIENCE_S)

            streams = await _streams(stack, lambda: _freeze(second))
            _are_whole_or_explained(streams)
            assert any(answer.error for answer in streams)
            await stack.until(lambda: len(warnings(stack, PAIR, "EngineFailed")) == 2, 90)
            await stack.until(lambda: _restarts(stack, second) == 1, PATIENCE_S)
            await stack.until(lambda: is_serving(stack, PAIR, 2), PATIENCE_S)
        finally:
            stop.set()
            answers = await loading
        _are_whole_or_explained(answers)
        assert any("hangs" in note for note in warnings(stack, PAIR, "EngineFailed"))
        assert [_restarts(stack, pod) for pod in (first, second)] == [1, 1], "none was replaced"


def _pair(stack: Stack, launch: Json) -> Json:
    body = stack.smollm2(PAIR)
    body["spec"]["model"]["snapshot"] = {"policy": "Never"}
    body["spec"]["scaling"] |= {"minReplicas": 2, "maxReplicas": 2}
    return with_launch(body, launch | {"model": f"demo/{PAIR}", "hangTimeout": HANG_TIMEOUT_S})


async def _streams(stack: Stack, fault) -> list[Answer]:
    """Four long answers, two in each engine; the fault comes when all of them have begun."""
    begun: set[int] = set()

    async def one(number: int) -> Answer:
        prompt = f"Write a long story about {number} ships and their captains."
        note = lambda _: begun.add(number)  # noqa: E731
        return await ask(stack.gateway_url, PAIR, prompt, max_tokens=48, on_token=note)

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(one(number)) for number in range(4)]
        await stack.until(lambda: len(begun) == len(asking), 60, pause=0.05)
        fault()
    return [task.result() for task in asking]


def _are_whole_or_explained(answers: list[Answer]) -> None:
    """No request fails but one whose answer had begun, and that one says so in its stream."""
    for answer in answers:
        assert answer.status == 200, answer
        assert answer.finished or (answer.text and answer.error), answer


def _engines(pod: Json) -> list[int]:
    return processes.of_pod(pod["metadata"]["uid"], "/engine/server.py")


def _freeze(pod: Json) -> None:
    for pid in _engines(pod):
        os.kill(pid, signal.SIGSTOP)


def _restarts(stack: Stack, pod: Json) -> int:
    found = stack.get("pods", pod["metadata"]["name"])
    assert found is not None
    assert found["metadata"]["uid"] == pod["metadata"]["uid"]
    return int(found["status"]["containerStatuses"][0]["restartCount"])
