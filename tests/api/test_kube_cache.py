"""WatchCache against the real API server."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from glowplug.kube import PODS, Client, PodRecord, WatchCache, trim_pod


@pytest.fixture
async def cache(client: Client, namespace: str) -> AsyncIterator[WatchCache[PodRecord]]:
    made = WatchCache(
        client,
        PODS,
        trim_pod,
        label_selector="app=m",
        index=lambda pod: [f"{pod.namespace}/{pod.labels['app']}"],
        watch_seconds=2.0,
    )
    task = asyncio.create_task(made.run())
    await made.synced()
    yield made
    assert not task.done()
    task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def pod(name: str, app: str = "m") -> dict:
    container = {"name": "engine", "image": "example.invalid/engine"}
    spec = {"containers": [container], "automountServiceAccountToken": False}
    return {"metadata": {"name": name, "labels": {"app": app}}, "spec": spec}


async def test_own_writes_are_there_at_once_and_the_watch_agrees(client, namespace, cache):
    told: list[tuple[str | None, str | None]] = []
    cache.subscribe(
        lambda old, new: told.append((old and old.resource_version, new and new.resource_version))
    )
    made = await client.create(PODS, pod("a"), namespace)
    cache.upsert(made)
    record = cache.get(namespace, "a")
    assert record is not None
    assert record.uid == made["metadata"]["uid"]
    patched = await client.patch(PODS, "a", {"metadata": {"labels": {"n": "1"}}}, namespace)
    cache.upsert(patched)
    cache.upsert(made)  # an answer that was overtaken
    assert cache.get(namespace, "a").labels == {"app": "m", "n": "1"}
    await client.create(PODS, pod("b"), namespace)
    await until(lambda: cache.get(namespace, "b") is not None)
    assert {record.name for record in cache.by_index(f"{namespace}/m")} == {"a", "b"}
    versions = [int(new) for _, new in told if new]
    assert versions == sorted(set(versions)), "each state is told once, in order"


async def test_status_becomes_the_record(client, namespace, cache):
    await client.create(PODS, pod("a"), namespace)
    conditions = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
        }
    ]
    body = {"status": {"conditions": conditions}}
    await client.patch(PODS, "a", body, namespace, subresource="status")
    await until(lambda: bool(cache.get(namespace, "a").unschedulable))
    record = cache.get(namespace, "a")
    assert "Insufficient nvidia.com/gpu" in record.unschedulable
    assert not record.scheduled
    assert record.phase == "Pending"


async def test_leaving_the_selector_is_a_deletion_and_coming_back_a_creation(
    client, namespace, cache
):
    await client.create(PODS, pod("a"), namespace)
    await until(lambda: cache.get(namespace, "a") is not None)
    away = await client.patch(PODS, "a", {"metadata": {"labels": {"app": "x"}}}, namespace)
    await until(lambda: cache.get(namespace, "a") is None)
    cache.upsert(away)
    assert cache.get(namespace, "a") is None, "news from before the deletion raises nothing"
    await client.patch(PODS, "a", {"metadata": {"labels": {"app": "m"}}}, namespace)
    await until(lambda: cache.get(namespace, "a") is not None)


async def test_a_successor_under_the_same_name_replaces_its_predecessor(client, namespace, cache):
    first = await client.create(PODS, pod("a"), namespace)
    await client.delete(PODS, "a", namespace, grace_seconds=0)
    second = await client.create(PODS, pod("a"), namespace)
    cache.upsert(second)
    cache.upsert(first)
    assert cache.get(namespace, "a").uid == second["metadata"]["uid"]
    await client.create(PODS, pod("z"), namespace)
    await until(lambda: cache.get(namespace, "z") is not None)
    assert cache.get(namespace, "a").uid == second["metadata"]["uid"]


async def test_nothing_is_missed_over_the_ends_of_many_watches(client, namespace, cache):
    for i in range(60):
        await client.create(PODS, pod(f"p{i}"), namespace)
        if i % 3 == 0:
            await client.delete(PODS, f"p{i}", namespace, grace_seconds=0)
        await asyncio.sleep(0.1)  # in all, three watches of two seconds
    expected = {f"p{i}" for i in range(60) if i % 3}
    await until(lambda: {record.name for record in cache.by_index(f"{namespace}/m")} == expected)
