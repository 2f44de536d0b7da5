"""Several nodes' caches: they load the store about once, and believe no peer."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web as site

from glowplug_snapshotter.cache import download, peers

from .caches import CHUNK, Caches, Snapshot, publish, until
from .web import Fault, Web

CHUNKS = 48
WEIGHTS = "model.safetensors"


@pytest.fixture
def snapshot(web: Web) -> Snapshot:
    return publish(web.root, {WEIGHTS: CHUNKS * CHUNK})


async def test_nodes_that_start_together_load_the_store_about_once(
    caches: Caches, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long a home may take is not the matter here, and this machine may be busy.
    monkeypatch.setattr(download, "PATIENCE", 120.0)
    monkeypatch.setattr(peers, "POLL_TIMEOUT", 60.0)
    caches.store.fault = lambda path, first, number: Fault(pause=0.05)
    nodes = [await caches.start(f"node{n}") for n in range(6)]
    restored = await asyncio.gather(*(node.restore(snapshot) for node in nodes))
    assert all(one == snapshot.files for one in restored)
    assert caches.store_reads <= 1.3 * CHUNKS


async def test_a_node_that_comes_later_asks_its_peers_and_not_the_store(
    caches: Caches, snapshot: Snapshot
) -> None:
    first = await caches.start("first")
    assert await first.restore(snapshot) == snapshot.files
    caches.store.requests.clear()
    late = await caches.start("late")
    assert await late.restore(snapshot) == snapshot.files
    assert caches.store.requests == []
    assert (await late.metrics())["from_peers_bytes_total"] == snapshot.size


@asynccontextmanager
async def stranger(
    caches: Caches,
    snapshot: Snapshot,
    chunk_body: Callable[[int], bytes],
    *,
    pause: float = 0.0,
    claims: str = "f" * (CHUNKS // 4),
) -> AsyncIterator[list[int]]:
    """A peer that claims to have everything, or less; yields the chunks that it was asked for."""
    asked: list[int] = []

    async def have(request: site.Request) -> site.Response:
        return site.json_response({"here": True, "chunks": claims, "coming": []})

    async def blob(request: site.Request) -> site.StreamResponse:
        first = request.http_range.start
        asked.append(first // CHUNK)
        body = chunk_body(first // CHUNK)
        response = site.StreamResponse(status=206, headers={"Content-Length": str(CHUNK)})
        response.content_length = CHUNK
        await response.prepare(request)
        await asyncio.sleep(pause)
        await response.write(body)
        return response

    async def nothing(request: site.Request) -> site.Response:
        return site.Response(status=404)

    app = site.Application()
    app.router.add_get("/have/{name}", have)
    app.router.add_get("/blobs/{name}", blob)
    app.router.add_get("/{tail:.*}", nothing)
    runner = site.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = caches.free_port()
    await site.TCPSite(runner, "127.0.0.1", port).start()
    address = f"127.0.0.1:{port}"
    caches.known.add(address)
    try:
        yield asked
    finally:
        caches.known.discard(address)
        await runner.cleanup()


async def test_a_peer_that_lies_is_found_out_and_not_asked_again(
    caches: Caches, snapshot: Snapshot
) -> None:
    async with stranger(caches, snapshot, lambda chunk: bytes(CHUNK)) as asked:
        node = await caches.start()
        assert await node.restore(snapshot) == snapshot.files
        figures = await node.metrics()
    assert asked
    assert figures["lies_total"] == len(asked) <= 2  # those that were under way together
    assert figures["peers_shunned"] == 1
    assert caches.store_reads == CHUNKS


async def test_a_forgery_with_the_right_crc32c_reaches_nobody_whole(
    caches: Caches, snapshot: Snapshot
) -> None:
    content = snapshot.files[WEIGHTS]

    def body(chunk: int) -> bytes:
        right = content[chunk * CHUNK : (chunk + 1) * CHUNK]
        return forged(right) if chunk == 5 else right

    async with stranger(caches, snapshot, body):
        node = await caches.start()
        await node.get(snapshot.manifest_path)
        with pytest.raises(aiohttp.ClientResponseError) as refused:
            await node.get(snapshot.blob_path(WEIGHTS), ((CHUNKS - 1) * CHUNK, CHUNKS * CHUNK))
        assert refused.value.status == 412
        kept = caches.folder / "node" / "blobs" / snapshot.blob(WEIGHTS)

        async def is_kept() -> bool:
            return kept.exists()

        await until(is_kept)
        figures = await node.metrics()
    assert figures["lies_total"] == 1
    assert kept.read_bytes() == content


async def test_a_slow_peer_stalls_nobody(caches: Caches, snapshot: Snapshot) -> None:
    content = snapshot.files[WEIGHTS]
    right = lambda chunk: content[chunk * CHUNK : (chunk + 1) * CHUNK]  # noqa: E731
    async with stranger(caches, snapshot, right, pause=600):
        node = await caches.start()
        async with asyncio.timeout(60):
            assert await node.restore(snapshot) == snapshot.files


async def test_a_home_that_never_loads_its_chunks_stalls_nobody(
    caches: Caches, snapshot: Snapshot
) -> None:
    async with stranger(caches, snapshot, lambda chunk: b"", claims="0") as asked:
        node = await caches.start()
        async with asyncio.timeout(120):
            assert await node.restore(snapshot) == snapshot.files
    assert asked == []
    assert caches.store_reads == CHUNKS


async def test_peers_that_are_gone_are_done_without(caches: Caches, snapshot: Snapshot) -> None:
    caches.known |= {f"127.0.0.1:{caches.free_port()}" for _ in range(3)}
    node = await caches.start()
    async with asyncio.timeout(60):
        assert await node.restore(snapshot) == snapshot.files


@pytest.mark.parametrize("spoil", ["none", "old", "other path", "other method", "other key"])
async def test_without_a_right_signature_a_peer_gets_nothing(
    caches: Caches, snapshot: Snapshot, spoil: str
) -> None:
    node = await caches.start()
    await node.restore(snapshot)
    path = snapshot.blob_path(WEIGHTS)
    now = time.time()
    target = {
        "none": path,
        "old": caches.sign("GET", path, now - 120),
        "other path": caches.sign("GET", "/have/" + "0" * 64, now).replace("/have/", "/blobs/"),
        "other method": caches.sign("POST", path, now),
        "other key": caches.sign("GET", path, now)[:-8] + "00000000",
    }[spoil]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{node.peer}{target}") as response:
            assert response.status == 403
        async with session.get(f"http://{node.peer}{caches.sign('GET', path, now)}") as response:
            assert await response.read() == snapshot.files[WEIGHTS]
    assert (await node.metrics())["refused_total"] == 1


async def test_a_prefetch_brings_the_snapshot_before_its_pod(
    caches: Caches, snapshot: Snapshot
) -> None:
    node = await caches.start()
    target = f"/prefetch/{snapshot.digest.removeprefix('blake3:')}"
    async with aiohttp.ClientSession() as session:

        async def ask() -> dict:
            signed = caches.sign("POST", target, time.time())
            async with session.post(f"http://{node.peer}{signed}") as response:
                return json.loads(await response.read())

        assert await ask() == {"here": 0, "total": snapshot.size}

        async def is_here() -> bool:
            return (await ask())["here"] == snapshot.size

        await until(is_here)
    reads = caches.store_reads
    assert await node.restore(snapshot) == snapshot.files
    assert caches.store_reads == reads


def forged(right: bytes) -> bytes:
    """Other bytes with the same crc32c: a multiple of its polynomial is added."""
    polynomial = 0x105EC76F1  # reflected, with its highest term
    body = bytearray(right)
    pattern = polynomial.to_bytes(5, "little")
    for at, byte in enumerate(pattern, start=1000):
        body[at] ^= byte
    return bytes(body)
