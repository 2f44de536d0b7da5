"""The node taken away, its GPUs taken by others, and its API server gone for a while."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from cluster import lifecycle
from cluster.config import GPU_RESOURCE, GPUS, NODE, paths
from cluster.processes import pid_of
from stack.ask import ask
from stack.install import S3_ENDPOINT
from stack.stack import Stack

from .scene import (
    ENGINE_IMAGE,
    PATIENCE_S,
    TIMEOUT_S,
    change,
    events,
    is_serving,
    light,
    neighbour,
    uids,
    warnings,
    writes_within,
)

pytestmark = pytest.mark.timeout(TIMEOUT_S)

SOURCE = "s3://models/smollm2-135m-instruct"
ROOM = "room"


async def test_a_replica_without_room_waits_in_peace_and_comes_with_the_room(stack: Stack) -> None:
    async with neighbour(stack):
        stack.apply(light(ROOM, SOURCE, S3_ENDPOINT, gpus=1))
        await stack.until(lambda: is_serving(stack, ROOM, 1), PATIENCE_S)
        try:
            _take_gpus(stack, GPUS - 2)
            await _lacks(
                stack,
                2,
                f"1 of 2 replicas have no node: 0/1 nodes are available: 1 "
                f"Insufficient {GPU_RESOURCE}",
            )
        finally:
            stack.kubectl("delete", "pod", "thief", "--ignore-not-found")
        await stack.until(lambda: is_serving(stack, ROOM, 2), PATIENCE_S)

        try:
            stack.kubectl("cordon", NODE)
            await _lacks(
                stack,
                3,
                "1 of 3 replicas have no node: 0/1 nodes are available: 1 "
                "node(s) were unschedulable",
            )
        finally:
            stack.kubectl("uncordon", NODE)
        await stack.until(lambda: is_serving(stack, ROOM, 3), PATIENCE_S)


async def test_a_drained_node_lets_requests_end_and_the_model_comes_back(stack: Stack) -> None:
    async with neighbour(stack):
        body = stack.smollm2("drained")
        body["spec"]["model"]["snapshot"] = {"policy": "Never"}
        body["spec"]["scaling"] |= {"minReplicas": 1, "maxReplicas": 1}
        name = stack.deploy(body)
        await stack.until(lambda: is_serving(stack, name, 1), PATIENCE_S)
        before = uids(stack, name)
        begun = asyncio.Event()
        told = "Write a long story about the sea."
        asking = asyncio.create_task(
            ask(stack.gateway_url, name, told, max_tokens=24, on_token=lambda _: begun.set())
        )
        await asyncio.wait_for(begun.wait(), 60)
        try:
            selector = f"--pod-selector=glowplug.dev/model={name}"
            words = ("drain", NODE, selector, "--delete-emptydir-data", "--timeout=100s")
            await asyncio.to_thread(stack.kubectl, *words)
            answer = await asking
            assert answer.finished, answer
            short = await stack.until(
                lambda: stack.condition(name, "CapacityAvailable", reason="Unschedulable"), 30
            )
            assert "node(s) were unschedulable" in short["message"]
            held = asyncio.create_task(ask(stack.gateway_url, name, "Hi", max_tokens=1))
            await asyncio.sleep(2)
            assert not held.done(), "it waits for the replica that waits for the node"
        finally:
            stack.kubectl("uncordon", NODE)
        assert (await held).finished
        await stack.until(lambda: is_serving(stack, name, 1), PATIENCE_S)
        assert uids(stack, name) != before


async def test_the_api_server_is_killed_while_a_model_scales(stack: Stack) -> None:
    server = lifecycle.api_server(paths())
    daemon = server.kube_apiserver()
    async with neighbour(stack):
        stack.apply(light("growing", SOURCE, S3_ENDPOINT))
        await stack.until(lambda: is_serving(stack, "growing", 1), PATIENCE_S)
        change(stack, "growing", replicas=4)
        try:
            os.kill(pid_of(daemon.pidfile), signal.SIGKILL)
            await asyncio.sleep(3)
            assert not daemon.running()
        finally:
            daemon.start()
            await asyncio.to_thread(daemon.wait, server.ready, 60)
        await stack.until(lambda: is_serving(stack, "growing", 4), PATIENCE_S)
        slots = {pod["metadata"]["labels"]["glowplug.dev/slot"] for pod in stack.pods("growing")}
        assert slots == {"0", "1", "2", "3"}


async def _lacks(stack: Stack, replicas: int, words: str) -> None:
    """One replica more than has room: it is said, the others serve, and nothing goes round."""
    change(stack, ROOM, replicas=replicas)
    short = await stack.until(
        lambda: stack.condition(ROOM, "CapacityAvailable", reason="Unschedulable"), 60
    )
    assert short["status"] == "False"
    assert words in short["message"]
    notes = await stack.until(lambda: warnings(stack, ROOM, "Unschedulable"), 90)
    assert any(words in note for note in notes), notes
    assert stack.condition(ROOM, "Ready", status="True", reason="Serving")
    said, pods = len(events(stack, ROOM)), len(stack.pods(ROOM))
    assert pods == replicas
    assert await writes_within(stack, 8) <= 4
    assert len(events(stack, ROOM)) == said


def _take_gpus(stack: Stack, count: int) -> None:
    """A plain Pod that holds them."""
    container = {
        "name": "thief",
        "image": ENGINE_IMAGE,
        "command": ["sleep", "infinity"],
        "resources": {"limits": {GPU_RESOURCE: str(count)}},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    stack.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "thief"}, "spec": spec})
    stack.kubectl("wait", "--for=condition=Ready", "pod/thief", "--timeout=60s")
