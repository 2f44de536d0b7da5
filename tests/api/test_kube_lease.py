"""Lease against the real API server: one writer at a time, quick hand-over, safe take-over."""

import asyncio
import time
import uuid
from contextlib import suppress

import pytest

from glowplug.kube import LEASES, Client, Lease, LeaseLost

TIMES = {"duration": 5.0, "renew_deadline": 3.0, "retry": 0.3}


@pytest.fixture
def contender(client: Client):
    name = f"lease-{uuid.uuid4().hex[:8]}"

    def make(identity: str, **changes) -> Lease:
        return Lease(client, "default", name, identity, **(TIMES | changes))

    make.name = name
    return make


async def holder(client: Client, contender) -> str:
    lease = await client.get(LEASES, contender.name, "default")
    return lease["spec"]["holderIdentity"]


async def test_a_release_hands_over_at_once(client, contender):
    a, b = contender("a", duration=60.0), contender("b", duration=60.0)
    await a.acquire()
    assert a.held()
    waiting = asyncio.create_task(b.acquire())
    await asyncio.sleep(1.0)
    assert not waiting.done()
    await a.release()
    assert not a.held()
    async with asyncio.timeout(30.0):  # less than the lease's duration
        await waiting
    assert await holder(client, contender) == "b"


async def test_renewed_for_as_long_as_it_is_held(client, contender):
    a, b = contender("a"), contender("b")
    await a.acquire()
    holding = asyncio.create_task(a.hold())
    waiting = asyncio.create_task(b.acquire())
    await asyncio.sleep(6.0)
    assert a.held()
    assert not waiting.done()
    waiting.cancel()
    holding.cancel()
    with suppress(asyncio.CancelledError):
        await holding


async def test_a_crashed_holder_is_replaced_after_it_has_stopped_trusting_its_lease(
    client, contender
):
    a, b = contender("a"), contender("b")
    await a.acquire()  # and never renews
    started = time.monotonic()
    async with asyncio.timeout(60):
        await b.acquire()
    assert time.monotonic() - started > TIMES["renew_deadline"]
    assert not a.held()
    assert b.held()


async def test_a_leader_that_was_suspended_writes_nothing_when_it_resumes(client, contender):
    asleep = [0.0]
    a = contender("a", clock=lambda: time.monotonic() + asleep[0])
    b = contender("b")
    await a.acquire()
    async with asyncio.timeout(60):
        await b.acquire()
    version = (await client.get(LEASES, contender.name, "default"))["metadata"]["resourceVersion"]
    asleep[0] = 60.0
    assert not a.held()
    with pytest.raises(LeaseLost):
        await a.hold()
    await a.release()
    lease = await client.get(LEASES, contender.name, "default")
    assert lease["spec"]["holderIdentity"] == "b"
    assert lease["metadata"]["resourceVersion"] == version


async def test_a_holder_whose_lease_was_taken_learns_it_at_the_next_renewal(client, contender):
    a = contender("a")
    await a.acquire()
    thief = {"spec": {"holderIdentity": "thief"}}
    await client.patch(LEASES, contender.name, thief, "default")
    with pytest.raises(LeaseLost, match="held by thief"):
        await a.hold()
    assert not a.held()


async def test_of_many_contenders_one_wins(contender):
    contenders = [contender(f"c{i}") for i in range(8)]
    tasks = [asyncio.create_task(one.acquire()) for one in contenders]
    await asyncio.sleep(1.0)
    assert sum(one.held() for one in contenders) == 1
    for task in tasks:
        task.cancel()


async def test_the_lease_belongs_to_what_its_holder_lives_in(client, contender):
    def pod(name: str) -> dict[str, str]:
        return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": f"uid-{name}"}

    async def owners() -> list[dict[str, str]]:
        lease = await client.get(LEASES, contender.name, "default")
        return lease["metadata"].get("ownerReferences", [])

    a, b, nobody = contender("a", owner=pod("a")), contender("b", owner=pod("b")), contender("c")
    await a.acquire()
    assert await owners() == [pod("a")]
    await a.release()
    await b.acquire()
    assert await owners() == [pod("b")], "the first Pod's end must not take the Lease along"
    await b.release()
    await nobody.acquire()
    assert await owners() == []
