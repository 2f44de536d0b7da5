"""Gateways, operators and replicas that go away under load, in order or not. No request fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stack.clients import TIMEOUT_S, clients, long_streams
from stack.stack import Stack

pytestmark = pytest.mark.timeout(TIMEOUT_S)

KIND = "modeldeployments.glowplug.dev"
GATEWAY, OPERATOR = "deployment/glowplug-gateway", "deployment/glowplug-operator"


@pytest.fixture
def doubled(stack: Stack) -> Iterator[Stack]:
    """Two gateways and two operators, as the chart has them by default."""
    _scale(stack, 2)
    yield stack
    _scale(stack, 1)


def _scale(stack: Stack, count: int) -> None:
    stack.kubectl("-n", stack.system, "scale", GATEWAY, OPERATOR, f"--replicas={count}")
    for deployment in (GATEWAY, OPERATOR):
        _rolled_out(stack, deployment)


def _rolled_out(stack: Stack, deployment: str) -> None:
    stack.kubectl("-n", stack.system, "rollout", "status", deployment, "--timeout=110s")


async def _serving(stack: Stack, name: str, replicas: int) -> set[str]:
    """Deploy the example with a pinned count; the uids of its Pods once they serve."""
    body = stack.smollm2(name)
    body["spec"] |= {"replicas": replicas}
    stack.deploy(body)
    await stack.until(lambda: stack.ready_replicas(name) == replicas, 240)
    return _uids(stack, name)


async def test_a_rollout_of_the_gateways_and_the_loss_of_one_fail_no_request(
    doubled: Stack,
) -> None:
    stack, name = doubled, "fronted"
    engines = await _serving(stack, name, 1)

    with clients(stack, name) as campaign:
        for _ in campaign.turns():
            with long_streams(stack, name, 1) as streams:
                before = _gateways(stack)
                stack.kubectl("-n", stack.system, "rollout", "restart", GATEWAY)
                await _until_only(stack, 2, without=before)
                lost = min(_gateways(stack))
                stack.kubectl("-n", stack.system, "delete", "pod", lost, "--wait=false")
                await _until_only(stack, 2, without={lost})
            assert [one for one in streams if not one.finished or one.error] == []

    print(campaign)
    assert campaign.failed == []
    assert _uids(stack, name) == engines


def _gateways(stack: Stack) -> set[str]:
    """Names of the gateways' Pods, terminating ones included."""
    found = stack.find("pods", "app.kubernetes.io/component=gateway", stack.system)
    return {pod["metadata"]["name"] for pod in found}


async def _until_only(stack: Stack, count: int, *, without: set[str]) -> None:
    """Wait until there are so many gateways, all ready, and none of these."""
    await stack.until(lambda: len(found := _gateways(stack)) == count and not found & without, 240)
    _rolled_out(stack, GATEWAY)


async def test_operators_that_end_or_are_killed_fail_no_request_and_make_no_double(
    doubled: Stack,
) -> None:
    stack, name = doubled, "steered"
    engines = await _serving(stack, name, 2)

    def restart() -> None:
        stack.kubectl("-n", stack.system, "rollout", "restart", OPERATOR)

    def kill() -> None:
        stack.kill_operator(leader=True)

    with clients(stack, name) as campaign:
        for _ in campaign.turns():
            for blow in (restart, kill):
                leader = stack.leader()
                stack.kubectl("scale", KIND, name, "--replicas=3")
                await stack.until(lambda: len(stack.pods(name)) == 3, 120, pause=0.1)
                blow()
                await _another_leads(stack, leader)
                await stack.until(lambda: stack.ready_replicas(name) == 3, 240)
                slots = sorted(
                    p["metadata"]["labels"]["glowplug.dev/slot"] for p in stack.pods(name)
                )
                assert slots == ["0", "1", "2"]
                assert engines < _uids(stack, name), "a replica that served was replaced"
                stack.kubectl("scale", KIND, name, "--replicas=2")
                await stack.until(lambda: len(stack.pods(name)) == 2, 240)
                engines = _uids(stack, name)
                _rolled_out(stack, OPERATOR)

    print(campaign)
    assert campaign.failed == []


async def test_a_replica_that_somebody_deletes_ends_what_it_streams_first(stack: Stack) -> None:
    name = "deleted"
    await _serving(stack, name, 2)

    with clients(stack, name) as campaign:
        for _ in campaign.turns():
            with long_streams(stack, name, 3) as streams:
                await stack.until(lambda: min(map(stack.in_flight, stack.pods(name))) > 0, 120)
                victim = stack.pods(name)[0]["metadata"]
                stack.kubectl("delete", "pod", victim["name"], "--wait=false")
                await _until_gone(stack, name, victim["uid"])
            assert [one for one in streams if not one.finished or one.error] == []
            await stack.until(lambda: stack.ready_replicas(name) == 2, 240)

    print(campaign)
    assert campaign.failed == []


async def _until_gone(stack: Stack, name: str, uid: str) -> None:
    await stack.until(lambda: uid not in _uids(stack, name), 300)


async def _another_leads(stack: Stack, leader: str) -> None:
    await stack.until(lambda: stack.leader() not in ("", leader), 120)


def _uids(stack: Stack, name: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in stack.pods(name)}
