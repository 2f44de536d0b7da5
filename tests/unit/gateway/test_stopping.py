"""SIGTERM as the gateway lives it: clients go elsewhere, requests end, demand to the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from glowplug.gateway.gateway import Gateway, Settings

from .bench import Bench, Exchange, chat, until


@pytest.fixture
async def bench(settings: Settings) -> AsyncIterator[Bench]:
    """A gateway that the test itself stops; its grace is 2 min."""
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        gateway = Gateway(settings, session)
        gateway.synced = lambda: True
        await gateway.start()
        await gateway.accept()
        yield Bench(gateway, session, stack)


async def test_what_was_taken_is_finished_and_nothing_new_is_taken(bench: Bench) -> None:
    finish = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        await finish.wait()
        await chat(exchange)

    bench.model(slots=1)
    asking = [asyncio.create_task(bench.ask(stream=n == 0)) for n in range(2)]
    await until(lambda: bench.traffic.held == 2)
    engine = await bench.serving(wait)
    await until(lambda: (bench.traffic.held, len(engine.asked)) == (1, 1))
    demand = await bench.session.get(f"{bench.admin}/demand")

    stopping = asyncio.create_task(bench.gateway.stop())
    await asyncio.sleep(0.05)
    async with bench.session.get(f"{bench.admin}/readyz") as response:
        assert response.status == 503
    await refused(bench)
    while json.loads(await demand.content.readline())["seq"] < 3:
        assert not stopping.done()
    finish.set()
    assert [status for status, _ in await asyncio.gather(*asking)] == [200, 200]
    await asyncio.wait_for(stopping, 60)


async def refused(bench: Bench) -> None:
    """Wait until nobody listens, without keeping the port open by trying too often."""
    async with asyncio.timeout(60):
        with contextlib.suppress(OSError):
            while True:
                await asyncio.sleep(0.5)
                await bench.connect()


async def test_who_still_comes_is_answered_and_told_to_go_until_nobody_does(bench: Bench) -> None:
    bench.model()
    await bench.serving()
    stopping = asyncio.create_task(bench.gateway.stop())
    body = {"model": "smollm2", "messages": [], "stream": True}
    for _ in range(6):  # longer than the port would stay open if nobody came
        await asyncio.sleep(0.1)
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{bench.url}/v1/chat/completions", json=body) as answer,
        ):
            assert answer.headers["connection"] == "close"
            assert (await answer.text()).endswith("data: [DONE]\n\n")
    await refused(bench)
    await asyncio.wait_for(stopping, 60)


async def test_idle_connections_do_not_use_up_the_grace(bench: Bench) -> None:
    reader, _ = await bench.connect()
    await asyncio.wait_for(bench.gateway.stop(), 60)
    assert await reader.read() == b""


async def test_clients_that_keep_their_connections_lose_no_request(bench: Bench) -> None:
    """A client sees its connection end only after an answer that said so, or while it rests."""
    bench.model()
    await bench.serving()
    body = {"model": "smollm2", "messages": [], "stream": True}
    answers = 0

    async def client() -> None:
        nonlocal answers
        told = None
        async with aiohttp.ClientSession() as session:
            while told != "close":  # then it would go where another gateway is
                async with session.post(f"{bench.url}/v1/chat/completions", json=body) as got:
                    assert (await got.text()).endswith("data: [DONE]\n\n")
                    told = got.headers.get("connection")
                    answers += 1

    clients = [asyncio.create_task(client()) for _ in range(16)]
    await until(lambda: answers > 100)
    await bench.gateway.stop()
    await asyncio.wait_for(asyncio.gather(*clients), 60)


class TestLongFarewell:
    """Silence would be waited for: who is told that the connection ends need not be silent."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, limits=replace(settings.limits, farewell=100.0))

    async def test_a_held_request_is_told_in_its_answer(self, bench: Bench) -> None:
        bench.model()
        asking = asyncio.create_task(bench.ask())
        await until(lambda: bench.traffic.held == 1)
        stopping = asyncio.create_task(bench.gateway.stop())
        await asyncio.sleep(0)
        bench.replica(await bench.engine())
        status, _ = await asking
        assert status == 200
        async with asyncio.timeout(20):
            await until(lambda: not bench.gateway.proxy.connections)
        assert not stopping.done(), "it stays for those who have not heard yet"
        stopping.cancel()


class TestGraceOver:
    """The grace ends before the requests do."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, grace=0.2)

    async def test_held_requests_are_told_to_come_again(self, bench: Bench) -> None:
        bench.model()
        asking = asyncio.create_task(bench.ask())
        await until(lambda: bench.traffic.held == 1)
        await asyncio.wait_for(bench.gateway.stop(), 60)
        status, body = await asking
        assert status == 503
        assert json.loads(body)["error"]["code"] == "gateway_stopping"

    async def test_an_answer_that_does_not_end_is_reset(self, bench: Bench) -> None:
        async def never(exchange: Exchange) -> None:
            await asyncio.sleep(60)

        bench.model()
        engine = await bench.serving(never)
        asking = asyncio.create_task(bench.ask())
        await until(lambda: len(engine.asked) == 1)
        await asyncio.wait_for(bench.gateway.stop(), 60)
        with pytest.raises(aiohttp.ClientError):
            await asking
