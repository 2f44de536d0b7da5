"""The demand stream as an operator reads it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from glowplug.gateway.gateway import Settings

from .bench import Bench, Exchange, chat, event, until


class Reader:
    """One operator's connection."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.seen: dict[str, Any] = {}
        self.firsts: list[dict[str, Any]] = []

    async def line(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            line = json.loads(await self._response.content.readline())
        self.seen |= line["models"]
        self.firsts += line.get("firsts", [])
        return line

    async def to(self, **numbers: Any) -> dict[str, Any]:
        """Read until the model's numbers are these."""
        while True:
            line = await self.line()
            entry = self.seen.get("ns/smol", {})
            if entry.items() >= numbers.items():
                return line


@asynccontextmanager
async def listening(bench: Bench) -> AsyncIterator[Reader]:
    async with bench.session.get(f"{bench.admin}/demand") as response:
        yield Reader(response)


async def test_the_first_line_is_whole_and_lines_never_stop(bench: Bench) -> None:
    bench.model()
    bench.model(name="other", served_name="other")
    async with listening(bench) as reader:
        first = await reader.line()
        assert first["gateway"] == "gw-0"
        assert first["models"].keys() == {"ns/smol", "ns/other"}
        assert first["models"]["ns/smol"] == {
            "held": 0,
            "inflight": 0,
            "arrivals": 0,
            "completions": 0,
            "busySeconds": 0.0,
            "pods": {},
        }
        later = [await reader.line() for _ in range(3)]
    assert [line["seq"] for line in (first, *later)] == [0, 1, 2, 3]
    assert {line["epoch"] for line in later} == {first["epoch"]}
    assert all(line["models"] == {} for line in later)


class TestLongPeriod:
    """No line is due for longer than a test waits."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, demand_period=1000.0)

    async def test_the_first_held_request_is_told_at_once(self, bench: Bench) -> None:
        bench.model()
        async with listening(bench) as reader:
            await reader.line()
            asking = asyncio.create_task(bench.ask())
            await reader.to(held=1, arrivals=1)
            asking.cancel()


async def test_a_client_that_left_is_no_longer_held(bench: Bench) -> None:
    bench.model()
    async with listening(bench) as reader:
        asking = asyncio.create_task(bench.ask())
        await reader.to(held=1, arrivals=1)
        asking.cancel()
        await reader.to(held=0, arrivals=1, completions=0)


async def test_numbers_follow_a_request_through_its_pod(bench: Bench) -> None:
    finish = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        await finish.wait()
        await chat(exchange)

    bench.model()
    engine = await bench.serving(wait)
    async with listening(bench) as reader:
        await reader.to(held=0, pods={"pod-1": 0})
        asking = asyncio.create_task(bench.ask())
        await reader.to(held=0, inflight=1, arrivals=1, completions=0, pods={"pod-1": 1})
        bench.replica(engine, draining=True)
        await asyncio.sleep(0.1)
        finish.set()
        await asking
        await reader.to(inflight=0, completions=1, pods={})
        assert reader.seen["ns/smol"]["busySeconds"] >= 0.1


async def test_a_first_token_is_told_once_for_the_request_that_woke_the_model(
    bench: Bench,
) -> None:
    async def role_first(exchange: Exchange) -> None:
        await exchange.head(200, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        await exchange.chunk(event("", role="assistant"))
        await asyncio.sleep(0.1)
        await exchange.chunk(event("x"))
        await exchange.send(b"0\r\n\r\n")

    bench.model()
    async with listening(bench) as reader, listening(bench) as standby:
        await reader.line()
        before = time.time()
        asking = [asyncio.create_task(bench.ask(stream=True)) for _ in range(3)]
        await until(lambda: bench.traffic.held == 3)
        await bench.serving(role_first)
        await asyncio.gather(*asking)
        await bench.ask(stream=True)
        for each in (reader, standby):
            await each.to(completions=4)
            await each.line()
    (first,) = reader.firsts
    assert standby.firsts == [first]
    assert (first["model"], first["pod"]) == ("ns/smol", "pod-1")
    times = [first[key] for key in ("received", "replicaReady", "sent", "firstToken")]
    assert before - 0.01 <= times[0]
    assert times == sorted(times)
    assert times[3] - times[2] >= 0.1  # the chunk that only names a role is no token


async def test_no_first_token_is_told_while_the_model_serves_or_starts(bench: Bench) -> None:
    bench.model()
    engine = await bench.engine(healthy=False)
    bench.replica(engine)
    asking = asyncio.create_task(bench.ask())
    await until(lambda: bench.traffic.held == 1)
    async with listening(bench) as reader:
        engine.healthy = True
        await asking
        await reader.to(completions=1)
        await reader.line()
        assert reader.firsts == []


async def test_a_first_token_that_nobody_heard_waits_for_the_next_listener(bench: Bench) -> None:
    bench.model()
    asking = asyncio.create_task(bench.ask())
    await until(lambda: bench.traffic.held == 1)
    await bench.serving()
    await asking
    async with listening(bench) as reader:
        assert len((await reader.line())["firsts"]) == 1
    async with listening(bench) as reader:
        assert "firsts" not in await reader.line()


async def test_totals_never_go_back_when_a_model_is_deleted_and_made_again(bench: Bench) -> None:
    bench.model()
    engine = await bench.engine()
    replica = bench.replica(engine)
    await until(lambda: bool(bench.usable()))
    async with listening(bench) as reader:
        assert (await bench.ask())[0] == 200
        await reader.to(arrivals=1, completions=1, pods={"pod-1": 0})
        bench.gateway.fleet.remove_model("ns/smol")
        bench.gateway.fleet.remove_replica(replica)
        await reader.to(arrivals=1, completions=1, pods={})
    async with listening(bench) as reader:
        assert (await reader.line())["models"] == {}
    bench.model()
    async with listening(bench) as reader:
        assert (await reader.line())["models"]["ns/smol"]["arrivals"] == 1


@pytest.mark.parametrize("synced", [False, True])
async def test_probes_say_whether_clients_should_come(bench: Bench, synced: bool) -> None:
    bench.gateway.synced = lambda: synced
    async with bench.session.get(f"{bench.admin}/readyz") as response:
        assert response.status == (200 if synced else 503)
    async with bench.session.get(f"{bench.admin}/healthz") as response:
        assert response.status == 200
