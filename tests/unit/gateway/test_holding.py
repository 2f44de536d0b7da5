"""Requests at zero: held, informed, released, refused, forgotten."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace

import aiohttp
import openai
import pytest

from glowplug.gateway.gateway import Settings
from glowplug.gateway.proxy import Address

from .bench import Bench, Exchange, chat, event, until


def comments(body: bytes) -> list[str]:
    return [line for line in body.decode().splitlines() if line.startswith(":")]


async def held(bench: Bench, count: int = 1) -> None:
    await until(lambda: bench.traffic.held == count)


async def test_a_plain_request_waits_for_its_replica(bench: Bench) -> None:
    bench.model()
    asking = asyncio.create_task(bench.ask())
    await held(bench)
    await bench.serving()
    status, body = await asking
    assert status == 200
    assert json.loads(body)["choices"][0]["message"]["content"] == "Paris."


async def test_a_stream_hears_the_stage_until_its_first_token(bench: Bench) -> None:
    bench.model(estimate=9.0)
    launcher = await bench.launcher()
    engine = await bench.engine()
    async with bench.post(stream=True) as response:
        assert response.status == 200
        body = await read_to(response, b"stage=decide")
        launcher.say("restoring", "restore")
        bench.replica(engine, launcher_port=launcher.port)
        body += await read_to(response, b"stage=restore")
        launcher.say("starting", "load")
        body += await read_to(response, b"stage=load")
        launcher.say("ready")
        body += await response.read()

    form = re.compile(r": glowplug stage=\w+ elapsed=\d+\.\ds estimate=9s")
    assert all(form.fullmatch(line) for line in comments(body))
    answer = body[body.index(b"data:") :]
    assert answer.count(b"Par") == 1
    assert answer.endswith(b"data: [DONE]\n\n")
    assert b": glowplug" not in answer


async def read_to(response: aiohttp.ClientResponse, text: bytes) -> bytes:
    body = b""
    async with asyncio.timeout(60):
        while text not in body:
            body += await response.content.readany()
    return body


class TestLateComments:
    """The first comment is due long after the answer."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, patience=replace(settings.patience, comments_after=60.0))

    async def test_no_comment_comes_before_its_time(self, bench: Bench) -> None:
        bench.model()
        asking = asyncio.create_task(bench.ask(stream=True))
        await held(bench)
        await bench.serving()
        _, body = await asking
        assert not comments(body)


async def test_openai_client_reads_a_stream_behind_comments(bench: Bench) -> None:
    bench.model()
    client = openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key="none", max_retries=0)
    question = [{"role": "user", "content": "?"}]
    # Returns with the first comment, while nothing serves yet.
    stream = await client.chat.completions.create(model="smollm2", messages=question, stream=True)
    await bench.serving()
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "Paris."


async def test_a_plain_request_is_held_no_longer_than_its_limit(bench: Bench) -> None:
    bench.model(max_hold_plain=0.1, max_hold=30.0)
    async with bench.post() as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
        error = (await response.json())["error"]
    assert "spec.gateway.maxHoldPlain" in error["message"]
    assert error["code"] == "model_not_ready"
    assert bench.traffic.held == 0


async def test_a_stream_that_is_held_too_long_ends_in_an_error_event(bench: Bench) -> None:
    bench.model(max_hold=0.25)
    status, body = await bench.ask(stream=True)
    assert status == 200
    last = body.decode().rstrip().rsplit("\n\n", 1)[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_not_ready"


async def test_more_than_max_held_are_refused_at_once(bench: Bench) -> None:
    bench.model(max_held=2)
    asking = [asyncio.create_task(bench.ask()) for _ in range(2)]
    await held(bench, 2)
    async with bench.post() as response:
        assert response.status == 503
        assert "Retry-After" in response.headers
        assert "spec.gateway.maxHeld" in (await response.json())["error"]["message"]
    await bench.serving()
    assert [status for status, _ in await asyncio.gather(*asking)] == [200, 200]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_forgotten_at_once(bench: Bench, stream: bool) -> None:
    bench.model()
    asking = asyncio.create_task(bench.ask(stream=stream))
    await held(bench)
    if stream:
        await asyncio.sleep(0.2)  # comments flow already
    asking.cancel()
    await held(bench, 0)
    engine = await bench.serving()
    await asyncio.sleep(0.05)
    assert engine.asked == []
    async with bench.session.get(f"{bench.admin}/metrics") as response:
        assert 'code="499",model="smol",namespace="ns"} 1.0' in await response.text()


async def test_held_requests_are_released_as_the_replica_has_room(bench: Bench) -> None:
    running = most = 0

    async def count(exchange: Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        await chat(exchange)

    bench.model(slots=3)
    asking = [asyncio.create_task(bench.ask()) for _ in range(12)]
    await held(bench, 12)
    engine = await bench.serving(count)
    assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 12
    assert most == 3
    assert len(engine.asked) == 12


async def test_held_requests_are_served_in_their_order(bench: Bench) -> None:
    bench.model(slots=1)
    asking = []
    for number in range(5):
        asking.append(asyncio.create_task(bench.ask(user=str(number))))
        await held(bench, number + 1)
    engine = await bench.serving()
    await asyncio.gather(*asking)
    assert [asked.json["user"] for asked in engine.asked] == ["0", "1", "2", "3", "4"]


async def test_a_replica_is_used_when_its_launcher_says_so(bench: Bench) -> None:
    bench.model()
    engine, launcher = await bench.engine(healthy=False), await bench.launcher()
    bench.replica(engine, launcher_port=launcher.port)
    asking = asyncio.create_task(bench.ask())
    await held(bench)
    await asyncio.sleep(0.05)
    assert not asking.done()
    launcher.say("ready")
    assert (await asking)[0] == 200
    launcher.say("draining")
    await until(lambda: not bench.usable())


async def test_a_draining_replica_gets_nothing_new_and_ends_what_it_has(bench: Bench) -> None:
    finish = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await finish.wait()
        await chat(exchange)

    bench.model()
    leaving = await bench.serving(slow, "pod-1")
    first = asyncio.create_task(bench.ask())
    await until(lambda: len(leaving.asked) == 1)
    bench.replica(leaving, "pod-1", draining=True)
    second = asyncio.create_task(bench.ask())
    await held(bench)
    staying = await bench.serving(chat, "pod-2")
    assert (await second)[0] == 200
    finish.set()
    assert (await first)[0] == 200
    assert (len(leaving.asked), len(staying.asked)) == (1, 1)


async def test_a_draining_replica_keeps_no_connection(bench: Bench) -> None:
    finish = asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        if exchange.asked.json.get("user") == "slow":
            await finish.wait()
        await chat(exchange)

    bench.model()
    engine = await bench.serving(answer)
    address = Address("127.0.0.1", engine.port)
    slow = asyncio.create_task(bench.ask(user="slow"))
    await until(lambda: len(engine.asked) == 1)
    assert (await bench.ask())[0] == 200
    assert bench.gateway.pool.idle(address) == 1
    bench.replica(engine, draining=True)
    assert bench.gateway.pool.idle(address) == 0
    finish.set()
    assert (await slow)[0] == 200
    assert bench.gateway.pool.idle(address) == 0


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [("pinned", 503, "glowplug release smol -n ns"), ("deleted", 404, "was deleted")],
)
async def test_held_requests_of_a_model_switched_off_are_told(
    bench: Bench, change: str, status: int, says: str
) -> None:
    bench.model()
    asking = asyncio.create_task(bench.ask())
    await held(bench)
    if change == "pinned":
        bench.model(pinned=0)
    else:
        bench.gateway.fleet.remove_model("ns/smol")
    got, body = await asking
    assert got == status
    assert says in json.loads(body)["error"]["message"]


async def test_a_request_of_a_pinned_model_is_refused_at_once(bench: Bench) -> None:
    bench.model(pinned=0)
    assert (await bench.ask())[0] == 503
    bench.model(pinned=1)
    await bench.serving()
    assert (await bench.ask())[0] == 200


async def test_an_engines_error_behind_comments_becomes_an_event(bench: Bench) -> None:
    error = {"error": {"message": "prompt too long", "type": "BadRequestError", "code": 400}}

    async def refuse(exchange: Exchange) -> None:
        await exchange.json(error, 400)

    bench.model()
    asking = asyncio.create_task(bench.ask(stream=True))
    await held(bench)
    await asyncio.sleep(0.15)
    await bench.serving(refuse)
    status, body = await asking
    assert status == 200
    assert comments(body)
    assert json.loads(body.split(b"data: ")[1]) == error


async def test_comments_go_on_until_the_engines_first_byte(bench: Bench) -> None:
    async def think(exchange: Exchange) -> None:
        await asyncio.sleep(0.3)
        await exchange.events(event("x"), end=False)
        await asyncio.sleep(0.2)
        await exchange.chunk(event("y"))
        await exchange.send(b"0\r\n\r\n")

    bench.model()
    asking = asyncio.create_task(bench.ask(stream=True))
    await held(bench)
    await bench.serving(think)
    _, body = await asking
    assert any("stage=first_token" in line for line in comments(body))
    assert body.endswith(event("x") + event("y"))


async def test_a_replica_granted_to_a_client_that_just_left_is_free_again(bench: Bench) -> None:
    bench.model(slots=1)
    asking = asyncio.create_task(bench.ask())
    await held(bench)
    engine = await bench.engine(healthy=False)
    bench.replica(engine)
    (state,) = bench.traffic.engines.values()
    for connection in bench.gateway.proxy.connections:
        connection.abort()  # noticed by the request's task only after the grant below
    state.ready = True
    bench.traffic.release()
    assert bench.traffic.in_flight == 1
    await until(lambda: bench.traffic.in_flight == 0)
    assert engine.asked == []
    with pytest.raises(aiohttp.ClientError):
        await asking


class TestLauncherRestart:
    """A container that starts anew counts its states from the beginning."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return replace(settings, pace=replace(settings.pace, long_poll=60.0))

    async def test_a_launcher_that_starts_anew_is_heard(self, bench: Bench) -> None:
        bench.model()
        engine, launcher = await bench.engine(), await bench.launcher()
        for _ in range(5):
            launcher.say("starting")
        launcher.say("ready")
        bench.replica(engine, launcher_port=launcher.port)
        await until(lambda: bool(bench.usable()))
        await launcher.stop()
        await until(lambda: not bench.usable())
        again = await bench.launcher(launcher.port)
        again.say("ready")
        await until(lambda: bool(bench.usable()))
