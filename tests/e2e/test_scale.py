"""The queue, read from the real Prometheus, sizes the model; idleness returns it to zero."""

from __future__ import annotations

import asyncio

import pytest

from stack.ask import ask, load
from stack.stack import Stack

NODE_GPUS = 4

pytestmark = pytest.mark.timeout(900)


def _peak(name: str) -> str:
    series = f'vllm:num_requests_waiting{{glowplug_model="{name}"}}'
    return f"max(max_over_time({series}[5m]))"


def _serving(name: str) -> str:
    return f'count(vllm:num_requests_running{{glowplug_model="{name}"}} > 0)'


async def test_the_queue_scales_to_the_nodes_gpus_names_the_shortage_and_idles_to_zero(
    stack: Stack,
) -> None:
    body = stack.smollm2("queue")
    body["spec"]["scaling"] |= {"maxReplicas": NODE_GPUS + 1, "targetConcurrency": 2}
    name = stack.deploy(body)
    assert (await ask(stack.gateway_url, name, "Say hello.", max_tokens=8)).finished
    engine = stack.pods(name)[0]["status"]["podIP"]

    # Past the gateway, so that nothing but Prometheus can tell the operator of the queue.
    stop = asyncio.Event()
    loading = asyncio.create_task(
        load(f"http://{engine}:8000", name, clients=16, seconds=600, stop=stop, max_tokens=64)
    )
    try:
        await stack.until(lambda: stack.ready_replicas(name) == NODE_GPUS, 300)
        capacity = await stack.until(
            lambda: stack.condition(name, "CapacityAvailable", status="False"), 120
        )
    finally:
        stop.set()
        answers = await loading

    assert "nvidia.com/gpu" in capacity["message"]
    assert stack.prometheus(_peak(name)) > 0
    assert [answer for answer in answers if not answer.finished] == []
    await stack.until(lambda: stack.pods(name) == [], 240)
    ready = await stack.until(lambda: stack.condition(name, "Ready", reason="ScaledToZero"), 60)
    assert ready["status"] == "True"
    assert stack.condition(name, "CapacityAvailable", status="False") is None


async def test_clients_of_the_gateway_are_spread_over_the_replicas_they_cause(
    stack: Stack,
) -> None:
    body = stack.smollm2("spread")
    body["spec"]["scaling"] |= {"maxReplicas": 3, "targetConcurrency": 2}
    name = stack.deploy(body)

    stop = asyncio.Event()
    loading = asyncio.create_task(
        load(stack.gateway_url, name, clients=12, seconds=600, stop=stop, max_tokens=32)
    )
    try:
        await stack.until(lambda: stack.ready_replicas(name) == 3, 300)
        await stack.until(lambda: stack.prometheus(_serving(name)) == 3, 120)
    finally:
        stop.set()
        answers = await loading

    assert [answer for answer in answers if not answer.finished] == []


async def test_an_operator_killed_in_the_middle_of_a_scale_up_ends_in_the_same_state(
    stack: Stack,
) -> None:
    body = stack.smollm2("killed")
    body["spec"]["scaling"] |= {"minReplicas": 3}
    name = stack.deploy(body)

    await stack.until(lambda: len(stack.pods(name)) >= 1, 60)
    stack.kill_operator()

    await stack.until(lambda: stack.ready_replicas(name) == 3, 240)
    pods = stack.pods(name)
    assert len(pods) == 3, [pod["metadata"]["name"] for pod in pods]
    slots = sorted(pod["metadata"]["labels"]["glowplug.dev/slot"] for pod in pods)
    assert slots == ["0", "1", "2"]
