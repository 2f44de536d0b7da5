"""A restore with a node's cache: faster with it, complete without it, right whatever it says."""

import asyncio
from pathlib import Path

import pytest

from glowplug_snapshotter.restore import Request, restore

from .caches import CHUNK, Caches, Snapshot, publish
from .web import Fault, Web

MODEL = {"config.json": 700, "empty.txt": 0, "model.safetensors": 40 * CHUNK + 5}
WEIGHTS = "model.safetensors"


@pytest.fixture
def snapshot(web: Web) -> Snapshot:
    return publish(web.root, MODEL)


async def restored(caches: Caches, snapshot: Snapshot, to: Path, cache: str) -> dict[str, bytes]:
    request = Request(caches.store.url, "snapshot", snapshot.digest, None, to, cache)
    await asyncio.to_thread(restore, request, lambda event: None)
    return {name: (to / name).read_bytes() for name in snapshot.files}


async def test_the_second_restore_on_a_node_reads_nothing_from_the_store(
    caches: Caches, snapshot: Snapshot, tmp_path: Path
) -> None:
    node = await caches.start()
    assert await restored(caches, snapshot, tmp_path / "first", node.url) == snapshot.files
    caches.store.requests.clear()
    assert await restored(caches, snapshot, tmp_path / "second", node.url) == snapshot.files
    assert caches.store.requests == []


async def test_without_its_cache_a_restore_reads_the_store(
    caches: Caches, snapshot: Snapshot, tmp_path: Path
) -> None:
    gone = f"http://127.0.0.1:{caches.free_port()}"
    assert await restored(caches, snapshot, tmp_path / "to", gone) == snapshot.files


async def test_a_cache_that_ends_in_the_middle_is_done_without(
    caches: Caches, snapshot: Snapshot, tmp_path: Path
) -> None:
    caches.store.fault = lambda path, first, number: Fault(pause=0.1)
    node = await caches.start()
    task = asyncio.create_task(restored(caches, snapshot, tmp_path / "to", node.url))
    while caches.store_reads < 12:  # noqa: ASYNC110 - by another thread
        await asyncio.sleep(0.02)
    await caches.stop(node)
    assert await task == snapshot.files


async def test_bytes_that_rotted_in_the_cache_come_from_the_store(
    caches: Caches, snapshot: Snapshot, tmp_path: Path
) -> None:
    node = await caches.start()
    await node.restore(snapshot)
    blob = caches.folder / "node" / "blobs" / snapshot.blob(WEIGHTS)
    for _ in range(600):
        if blob.exists():
            break
        await asyncio.sleep(0.05)
    with open(blob, "r+b") as file:  # noqa: ASYNC230
        file.seek(3 * CHUNK)
        file.write(b"rotten")
    caches.store.requests.clear()

    assert await restored(caches, snapshot, tmp_path / "to", node.url) == snapshot.files

    asked = [headers["Range"] for path, headers in caches.store.requests]
    assert asked == [f"bytes={3 * CHUNK}-{4 * CHUNK - 1}"]
