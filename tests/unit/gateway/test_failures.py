"""Engines that die, lie or stall: retried while nothing was sent on, never cut clean after."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import openai
import pytest

from .bench import Behaviour, Bench, Exchange, chat, event, until


async def die_at_once(exchange: Exchange) -> None:
    exchange.die()


async def die_after_head(exchange: Exchange) -> None:
    await exchange.head(200, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
    await asyncio.sleep(0.02)
    exchange.die()


async def close_at_once(exchange: Exchange) -> None:
    exchange.writer.close()
    raise ConnectionError


async def talk_nonsense(exchange: Exchange) -> None:
    await exchange.send(b"SMTP ready\r\n")
    exchange.die()


async def read_until_cut(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer that must not look whole."""
    body = b""
    try:
        async for piece in response.content.iter_any():
            body += piece
    except aiohttp.ClientPayloadError:
        return body
    pytest.fail("the answer looks whole")


@pytest.mark.parametrize("death", [die_at_once, die_after_head, close_at_once, talk_nonsense])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_retried_elsewhere_before_its_first_byte(
    bench: Bench, death: Behaviour, stream: bool
) -> None:
    bench.model()
    dying = await bench.serving(death, "pod-1")
    sound = await bench.engine()
    bench.replica(sound, "pod-2")
    await until(lambda: bench.usable() == {"pod-1", "pod-2"})
    answers = [await bench.ask(stream=stream) for _ in range(2)]
    assert [status for status, _ in answers] == [200, 200]
    assert all(b"Par" in body for _, body in answers)
    assert len(dying.asked) >= 1
    assert len(sound.asked) == 2


async def test_an_engine_that_dies_alone_is_waited_for_again(bench: Bench) -> None:
    """The engine is killed before its first byte and started anew: the answer is whole."""
    bench.model()
    asking = asyncio.create_task(bench.ask(stream=True))
    await until(lambda: bench.traffic.held == 1)

    async def never(exchange: Exchange) -> None:
        await asyncio.sleep(60)

    first = await bench.serving(never)
    await until(lambda: len(first.asked) == 1)
    await asyncio.sleep(0.15)
    first.kill()
    await until(lambda: bench.traffic.held == 1)
    await asyncio.sleep(0.15)
    again = await bench.engine(chat, port=first.port)
    status, body = await asking
    assert status == 200
    assert body.endswith(b"data: [DONE]\n\n")
    assert body.count(b"Par") == 1
    stages = [line.split()[2] for line in body.decode().splitlines() if line.startswith(":")]
    assert "stage=image" in stages[stages.index("stage=first_token") :]
    assert len(again.asked) == 1


async def test_a_request_that_kills_every_engine_is_retried_only_once(bench: Bench) -> None:
    bench.model()
    engines = [await bench.serving(die_at_once, f"pod-{i}") for i in range(4)]
    async with bench.post() as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "engine_failed"
    assert sum(len(engine.asked) for engine in engines) == 2


async def test_an_unreachable_replica_costs_no_retry(bench: Bench) -> None:
    bench.model()
    for i in range(3):
        gone = await bench.serving(chat, f"gone-{i}")
        gone.kill()
    await bench.serving(chat, "pod-1")
    assert (await bench.ask())[0] == 200


@pytest.mark.parametrize("pieces", [1, 3])
async def test_a_stream_cut_in_the_middle_ends_in_an_error(bench: Bench, pieces: int) -> None:
    async def die_later(exchange: Exchange) -> None:
        await exchange.events(*[event("x")] * pieces, end=False)
        await asyncio.sleep(0.05)
        exchange.die()

    bench.model()
    dying = await bench.serving(die_later, "pod-1")
    await bench.serving(die_later, "pod-2")
    async with bench.post(stream=True) as response:
        assert response.status == 200
        body = await read_until_cut(response)
    *answer, last = body.decode().rstrip().split("\n\n")
    assert len(answer) == pieces
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_failed"
    assert len(dying.asked) <= 1


async def test_openai_client_raises_when_a_stream_is_cut(bench: Bench) -> None:
    async def die_later(exchange: Exchange) -> None:
        await exchange.events(event("x"), end=False)
        await asyncio.sleep(0.05)
        exchange.die()

    bench.model()
    await bench.serving(die_later)
    client = openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key="none", max_retries=0)
    question = [{"role": "user", "content": "?"}]
    stream = await client.chat.completions.create(model="smollm2", messages=question, stream=True)
    with pytest.raises(openai.APIError, match="failed in the middle"):
        async for _ in stream:
            pass


async def test_an_event_cut_in_two_is_ended_before_the_error(bench: Bench) -> None:
    async def die_inside(exchange: Exchange) -> None:
        await exchange.events(event("x") + b'data: {"choi', end=False)
        await asyncio.sleep(0.05)
        exchange.die()

    bench.model()
    await bench.serving(die_inside)
    async with bench.post(stream=True) as response:
        body = await read_until_cut(response)
    assert b'data: {"choi\n\ndata: {"error"' in body


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_plain_answer_cut_in_the_middle_never_looks_whole(
    bench: Bench, framing: str
) -> None:
    async def die_later(exchange: Exchange) -> None:
        await exchange.head(200, "Content-Type: application/json", framing)
        await exchange.send(b'4\r\n{"a"\r\n' if "chunked" in framing else b'{"a"')
        await asyncio.sleep(0.05)
        exchange.die()

    bench.model()
    await bench.serving(die_later)
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
        await bench.ask()
    async with bench.session.get(f"{bench.admin}/metrics") as response:
        assert 'code="502",model="smol",namespace="ns"} 1.0' in await response.text()


@pytest.mark.parametrize("ending", [b"", b"data: [DONE]\n\n"])
async def test_a_stream_framed_by_its_connection_needs_done(bench: Bench, ending: bytes) -> None:
    async def unframed(exchange: Exchange) -> None:
        await exchange.head(200, "Content-Type: text/event-stream")
        await exchange.send(event("x") + ending)
        exchange.writer.close()
        raise ConnectionError

    bench.model()
    await bench.serving(unframed)
    if ending:
        status, body = await bench.ask(stream=True)
        assert (status, body) == (200, event("x") + ending)
    else:
        with pytest.raises(aiohttp.ClientPayloadError):
            await bench.ask(stream=True)


async def test_requests_of_a_pod_that_is_gone_are_sent_elsewhere(bench: Bench) -> None:
    async def never(exchange: Exchange) -> None:
        await asyncio.sleep(60)

    bench.model()
    engine = await bench.engine(never)
    replica = bench.replica(engine, "pod-1")
    await until(lambda: bench.usable() == {"pod-1"})
    asking = asyncio.create_task(bench.ask())
    await until(lambda: len(engine.asked) == 1)
    bench.gateway.fleet.remove_replica(replica)
    await bench.serving(chat, "pod-2")
    assert (await asking)[0] == 200


async def test_a_client_that_leaves_ends_the_engines_work(bench: Bench) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.head(200, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        while True:
            await exchange.chunk(event("x"))
            await asyncio.sleep(0.005)

    bench.model()
    engine = await bench.serving(endless)
    async with bench.post(stream=True) as response:
        await response.content.readany()
        assert bench.traffic.in_flight == 1
        response.close()
    await until(lambda: engine.lost == 1)
    assert bench.traffic.in_flight == 0
    assert bench.traffic.totals.completions == 1


async def test_a_pooled_connection_that_died_is_replaced_without_a_trace(bench: Bench) -> None:
    calls = 0

    async def second_dies(exchange: Exchange) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            exchange.die()
        else:
            await chat(exchange)

    bench.model()
    engine = await bench.serving(second_dies)
    assert (await bench.ask())[0] == 200
    assert (await bench.ask())[0] == 200
    assert len(engine.asked) == 3
    async with bench.session.get(f"{bench.admin}/metrics") as response:
        assert "glowplug_gateway_retries_total{" not in await response.text()
