"""A node's cache as its Pods see it: read through once, while it comes, after restarts."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from .caches import CHUNK, Caches, Snapshot, publish
from .web import Fault, Web

MODEL = {"config.json": 700, "empty.txt": 0, "model.safetensors": 20 * CHUNK + 5}
WEIGHTS = "model.safetensors"


@pytest.fixture
def snapshot(web: Web) -> Snapshot:
    return publish(web.root, MODEL)


async def test_what_is_read_is_what_is_stored_and_the_store_is_read_once(
    caches: Caches, snapshot: Snapshot
) -> None:
    node = await caches.start()
    assert await node.restore(snapshot) == snapshot.files
    reads = caches.store_reads
    assert await node.restore(snapshot) == snapshot.files
    assert caches.store_reads == reads
    figures = await node.metrics()
    assert figures["bytes"] == snapshot.size
    assert figures["from_store_bytes_total"] == pytest.approx(snapshot.size, rel=0.05)


async def test_however_many_ask_at_once_each_chunk_is_fetched_once(
    caches: Caches, snapshot: Snapshot
) -> None:
    node = await caches.start()
    restored = await asyncio.gather(*(node.restore(snapshot) for _ in range(8)))
    assert all(one == snapshot.files for one in restored)
    assert caches.store_reads == 20 + 1 + 1  # chunks of the weights, and the configuration


async def test_chunks_are_served_while_the_rest_is_on_its_way(
    caches: Caches, snapshot: Snapshot
) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(path: str, first: int, number: int) -> Fault | None:
        if first >= 12 * CHUNK:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)
        return None

    caches.store.fault = hold
    node = await caches.start()
    path, content = snapshot.blob_path(WEIGHTS), snapshot.files[WEIGHTS]
    await node.get(snapshot.manifest_path)
    assert (
        await node.get(path, (3 * CHUNK - 7, 5 * CHUNK + 9))
        == content[3 * CHUNK - 7 : 5 * CHUNK + 9]
    )
    whole = asyncio.create_task(node.get(path))
    await asyncio.sleep(0.3)
    assert not whole.done()
    release.set()
    assert await whole == content


async def test_the_last_chunk_waits_for_the_proof_of_the_whole(
    caches: Caches, snapshot: Snapshot
) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(path: str, first: int, number: int) -> Fault | None:
        if first == CHUNK:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(60)
        return None

    caches.store.fault = hold
    node = await caches.start()
    path, content = snapshot.blob_path(WEIGHTS), snapshot.files[WEIGHTS]
    await node.get(snapshot.manifest_path)
    last = asyncio.create_task(node.get(path, (20 * CHUNK, len(content))))
    await node.get(path, (19 * CHUNK, 20 * CHUNK))
    await asyncio.sleep(0.3)
    assert not last.done(), "a chunk is still missing, so nothing proves the whole"
    release.set()
    assert await last == content[20 * CHUNK :]


async def test_a_restart_keeps_what_was_whole_and_what_was_proved_of_the_rest(
    caches: Caches, snapshot: Snapshot
) -> None:
    caches.store.fault = lambda path, first, number: (
        Fault(status=503) if first >= 10 * CHUNK else None
    )
    node = await caches.start()
    await node.get(snapshot.manifest_path)
    await node.get(snapshot.blob_path("config.json"))
    await node.get(snapshot.blob_path(WEIGHTS), (0, 10 * CHUNK))
    await caches.stop(node)
    caches.store.fault = lambda path, first, number: None
    caches.store.requests.clear()

    again = await caches.start()

    assert await again.restore(snapshot) == snapshot.files
    asked = [headers["Range"] for path, headers in caches.store.requests if "Range" in headers]
    assert len(asked) <= 11
    assert not any(one.startswith("bytes=0-") for one in asked)
    await caches.stop(again)
    caches.store.requests.clear()
    assert await (await caches.start()).restore(snapshot) == snapshot.files
    assert caches.store.requests == []


async def test_after_a_crash_what_is_torn_is_found_and_fetched_again(
    caches: Caches, snapshot: Snapshot
) -> None:
    node = await caches.start()
    assert await node.restore(snapshot) == snapshot.files
    await caches.stop(node)
    root = caches.folder / "node"
    (root / "running").touch()  # what a killed daemon leaves
    torn = root / "blobs" / snapshot.blob(WEIGHTS)
    torn.write_bytes(torn.read_bytes()[: 7 * CHUNK] + bytes(13 * CHUNK + 5))
    caches.store.requests.clear()

    again = await caches.start()

    with pytest.raises(aiohttp.ClientResponseError):
        await again.get(snapshot.blob_path(WEIGHTS), (7 * CHUNK, 8 * CHUNK))
    assert await again.restore(snapshot) == snapshot.files
    assert caches.store_reads == 21


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"short")])
async def test_what_somebody_took_away_is_fetched_again(
    caches: Caches, snapshot: Snapshot, damage: Callable[[Path], object]
) -> None:
    node = await caches.start()
    assert await node.restore(snapshot) == snapshot.files
    await caches.stop(node)
    again = await caches.start()
    damage(caches.folder / "node" / "blobs" / snapshot.blob(WEIGHTS))
    assert await again.restore(snapshot) == snapshot.files


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": '"something else"'}, 412),
        ({"Range": "bytes=9999999-"}, 416),
        ({"If-Match": '"{blake3}"', "Range": "bytes=0-0"}, 206),
        ({"If-Match": "*"}, 200),
    ],
)
async def test_conditions_are_those_of_any_store(
    caches: Caches, snapshot: Snapshot, headers: dict[str, str], status: int
) -> None:
    node = await caches.start()
    await node.get(snapshot.manifest_path)
    name = snapshot.blob("config.json")
    given = {key: value.format(blake3=name) for key, value in headers.items()}
    async with aiohttp.ClientSession() as session:
        url = f"{node.url}{snapshot.blob_path('config.json')}"
        async with session.get(url, headers=given) as response:
            assert response.status == status
            assert response.headers["ETag"] == f'"{name}"'


async def test_a_model_larger_than_the_budget_streams_through(
    caches: Caches, snapshot: Snapshot
) -> None:
    node = await caches.start(budget=5 * CHUNK)
    assert await node.restore(snapshot) == snapshot.files
    figures = await node.metrics()
    assert figures["passed_bytes_total"] == len(snapshot.files[WEIGHTS])
    assert figures["bytes"] <= 5 * CHUNK


async def test_the_least_recently_used_leaves_and_its_manifest_with_it(
    caches: Caches, snapshot: Snapshot
) -> None:
    others = [publish(caches.store.root, {"w.safetensors": 10 * CHUNK}, seed) for seed in (2, 3)]
    node = await caches.start(budget=32 * CHUNK)
    for one in (snapshot, others[0], snapshot, others[1]):
        assert await node.restore(one) == one.files
    caches.store.requests.clear()
    assert await node.restore(snapshot) == snapshot.files
    assert caches.store.requests == []
    assert await node.restore(others[0]) == others[0].files
    assert caches.store_reads == 10
    kept = {path.name for path in (caches.folder / "node" / "manifests").iterdir()}
    assert len(kept) == 2


@pytest.mark.parametrize(("fault", "status"), [(403, 502), (404, 404), (503, 503)])
async def test_what_the_store_refuses_is_told_and_asked_again_later(
    caches: Caches, snapshot: Snapshot, fault: int, status: int
) -> None:
    node = await caches.start()
    caches.store.fault = lambda path, first, number: Fault(status=fault)
    with pytest.raises(aiohttp.ClientResponseError) as refused:
        await node.get(snapshot.manifest_path)
    assert refused.value.status == status
    caches.store.fault = lambda path, first, number: None
    assert await node.restore(snapshot) == snapshot.files


async def test_a_blob_damaged_in_the_store_is_never_served(
    caches: Caches, snapshot: Snapshot
) -> None:
    caches.store.fault = lambda path, first, number: Fault(flip=100) if first == 4 * CHUNK else None
    node = await caches.start()
    await node.get(snapshot.manifest_path)
    path = snapshot.blob_path(WEIGHTS)
    with pytest.raises(aiohttp.ClientError):
        await node.get(path, (4 * CHUNK, 5 * CHUNK))


@pytest.mark.parametrize(
    "path",
    ["/", "/blobs/../key", "/blobs/" + "0" * 64, "/have/" + "0" * 64, "/metrics", "/manifests/x"],
)
async def test_pods_get_nothing_but_manifests_and_their_blobs(caches: Caches, path: str) -> None:
    node = await caches.start()
    with pytest.raises(aiohttp.ClientResponseError) as refused:
        await node.get(path)
    assert refused.value.status == 404
