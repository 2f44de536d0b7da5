"""Demand streams from real HTTP servers on loopback."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from glowplug.observe import GatewayDemand, SliceRecord, trim_slice
from glowplug.observe.slices import Endpoint

from .conftest import Cache, until


class Gateway:
    """Streams what the test says; each connection starts with a full line."""

    def __init__(self) -> None:
        self.models: dict[str, Any] = {}
        self.epoch = 1
        self.connections = 0
        self._changed = asyncio.Condition()
        self._garbage: bytes | None = None

    async def tell(self, **models: Any) -> None:
        async with self._changed:
            self.models |= {f"ns/{name}": {"held": held} for name, held in models.items()}
            self._changed.notify_all()

    async def say(self, raw: bytes) -> None:
        async with self._changed:
            self._garbage = raw
            self._changed.notify_all()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            line = {"gateway": "g", "epoch": self.epoch, "models": self.models}
            raw, self._garbage = self._garbage, None
            await response.write(raw or json.dumps(line).encode() + b"\n")
            async with self._changed:
                await self._changed.wait()


def slice_of(*endpoints: Endpoint, version: int = 1) -> SliceRecord:
    return SliceRecord("sys", "glowplug-gateway-x", "s", str(version), endpoints)


@pytest.fixture
async def demand(session):
    cache = Cache()
    woken, firsts = [], []
    made = GatewayDemand(cache, session, on_demand=woken.append, on_first=firsts.append)
    made.cache, made.woken, made.firsts = cache, woken, firsts
    task = asyncio.create_task(made.run())
    yield made
    assert not task.done()
    task.cancel()


def now(demand: GatewayDemand) -> float:
    return demand._clock()


async def test_first_held_request_calls_back_at_once(demand, serve):
    gateway = Gateway()
    server = await serve("/demand", gateway.handle)
    demand.cache.put(slice_of(Endpoint("g", server.url, True)))
    await until(lambda: gateway.connections == 1)
    await gateway.tell(m=1)
    await until(lambda: demand.woken == ["ns/m"])
    assert demand.snapshot("ns/m", now(demand)).held == 1


async def test_a_garbled_line_costs_the_connection_not_the_gateway(demand, serve):
    gateway = Gateway()
    server = await serve("/demand", gateway.handle)
    demand.cache.put(slice_of(Endpoint("g", server.url, True)))
    await until(lambda: gateway.connections == 1)
    await gateway.say(b'{"models": \n')
    await until(lambda: gateway.connections == 2)
    await gateway.tell(m=3)
    await until(lambda: demand.snapshot("ns/m", now(demand)).held == 3)


async def test_a_dead_gateway_in_its_slice_stays_demand_until_it_leaves(demand, serve):
    gateway = Gateway()
    await gateway.tell(m=1)
    server = await serve("/demand", gateway.handle)
    demand.cache.put(slice_of(Endpoint("g", server.url, True)))
    await until(lambda: demand.snapshot("ns/m", now(demand)).held == 1)
    await server.stop()
    later = now(demand) + 3.5
    assert demand.snapshot("ns/m", later).stale
    assert demand.snapshot("ns/m", later).held == 1
    demand.cache.put(slice_of(version=2))
    await until(lambda: demand.snapshot("ns/m", later).held == 0)
    assert not demand.snapshot("ns/m", later).stale


async def test_before_the_gateways_are_known_everything_is_stale(session):
    unknown = GatewayDemand(Cache(), session, on_demand=print, on_first=print)
    assert unknown.snapshot("ns/m", 0.0).stale


def test_slices_are_trimmed_to_the_admin_port():
    record = trim_slice(
        {
            "metadata": {"namespace": "sys", "name": "s", "uid": "u", "resourceVersion": "7"},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}],
            "endpoints": [
                {"addresses": ["198.18.0.5"], "targetRef": {"uid": "p"}},
                {"addresses": ["198.18.0.6"], "conditions": {"ready": False, "serving": True}},
                {"addresses": ["198.18.0.7"], "conditions": {"serving": False}},
            ],
        }
    )
    assert record.endpoints == (
        Endpoint("p", "http://198.18.0.5:9090", True),
        Endpoint("198.18.0.6", "http://198.18.0.6:9090", True),
        Endpoint("198.18.0.7", "http://198.18.0.7:9090", False),
    )
