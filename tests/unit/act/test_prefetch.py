"""Telling a node's cache of a Pod that was just bound there."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from glowplug.act.manifest import ANNOTATION_SNAPSHOT
from glowplug.act.prefetch import Prefetcher
from glowplug.observe import NodeCaches, trim_cache_slice
from glowplug_snapshotter.cache.auth import Key

KEY = Key(b"a key that both sides share")
HEX = "ab" * 32


@dataclass(frozen=True)
class Pod:
    uid: str = "u1"
    name: str = "smollm2-0a1b2c3d-0"
    node: str | None = None
    sandbox_ready: bool = False
    annotations: dict[str, str] = field(
        default_factory=lambda: {ANNOTATION_SNAPSHOT: f"blake3:{HEX}"}
    )


PENDING, BOUND = Pod(), Pod(node="node1")


@dataclass
class Cache:
    """The cache of node1: what it was asked for, and what it says."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    says: dict[str, int] = field(default_factory=lambda: {"here": 0, "total": 10})

    async def answer(self, request: web.Request) -> web.Response:
        signed = KEY.admits("POST", request.raw_path, time.time())
        self.asked.append(request.path)
        return web.json_response(self.says, status=200 if signed else 403)


@pytest.fixture
async def cache(free_port: Callable[[], int]) -> AsyncIterator[Cache]:
    made = Cache()
    app = web.Application()
    app.router.add_post("/prefetch/{hex}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    made.url = f"http://127.0.0.1:{port}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def prefetcher(cache: Cache) -> AsyncIterator[Prefetcher]:
    urls: dict[str, str] = {"node1": cache.url, "node2": "http://127.0.0.1:1"}
    async with aiohttp.ClientSession() as session:
        yield Prefetcher(session, KEY, urls.get, lambda: True)


async def settle(prefetcher: Prefetcher) -> None:
    await asyncio.gather(*prefetcher._asking)


async def test_the_nodes_cache_is_told_once_the_pod_has_a_node(
    cache: Cache, prefetcher: Prefetcher
) -> None:
    prefetcher(None, PENDING)
    prefetcher(PENDING, BOUND)
    prefetcher(BOUND, replace(BOUND, sandbox_ready=True))
    await settle(prefetcher)
    assert cache.asked == [f"/prefetch/{HEX}"]
    assert prefetcher.path_of("u1") == "cold"


async def test_a_start_is_cached_where_the_node_had_everything(
    cache: Cache, prefetcher: Prefetcher
) -> None:
    cache.says = {"here": 10, "total": 10}
    prefetcher(None, BOUND)
    await settle(prefetcher)
    assert prefetcher.path_of("u1") == "cached"
    prefetcher(BOUND, None)
    assert prefetcher.path_of("u1") == "cold", "forgotten with its Pod"


@pytest.mark.parametrize(
    "pod",
    [replace(BOUND, annotations={}), replace(BOUND, sandbox_ready=True), PENDING],
    ids=["restores without a cache", "has long been there", "has no node"],
)
async def test_other_pods_are_nothing_to_a_cache(
    cache: Cache, prefetcher: Prefetcher, pod: Pod
) -> None:
    prefetcher(None, pod)
    await settle(prefetcher)
    assert cache.asked == []


@pytest.mark.parametrize("node", ["node2", "node3"], ids=["gone", "without a cache"])
async def test_a_cache_that_does_not_answer_is_no_trouble(
    prefetcher: Prefetcher, node: str
) -> None:
    prefetcher(None, replace(BOUND, node=node))
    await settle(prefetcher)
    assert prefetcher.path_of("u1") == "cold"


def test_caches_are_found_by_their_nodes() -> None:
    ready: dict[str, Any] = {"addresses": ["198.18.0.9"], "nodeName": "node1", "conditions": {}}
    other = {"addresses": ["fd00::9"], "nodeName": "node2", "conditions": {"ready": True}}
    down = {"addresses": ["198.18.0.7"], "nodeName": "node3", "conditions": {"ready": False}}
    record = trim_cache_slice(
        {
            "metadata": {"namespace": "c", "name": "s", "uid": "u", "resourceVersion": "1"},
            "ports": [{"name": "http", "port": 1}, {"name": "peers", "port": 9421}],
            "endpoints": [ready, other, down],
        }
    )
    caches = NodeCaches(SimpleNamespace(all=lambda: [record]))
    assert caches.url("node1") == "http://198.18.0.9:9421"
    assert caches.url("node2") == "http://[fd00::9]:9421"
    assert caches.url("node3") is None
