"""Clients at a model that serves: the OpenAI client, headers, errors, /v1/models."""

from __future__ import annotations

import asyncio

import aiohttp
import openai
import pytest

from .bench import TOKENS, Bench, Exchange, event, until


@pytest.fixture
def client(bench: Bench) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{bench.url}/v1", api_key="none", max_retries=0)


QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


async def test_openai_client_gets_a_plain_answer(bench: Bench, client: openai.AsyncOpenAI) -> None:
    bench.model()
    await bench.serving()
    answer = await client.chat.completions.create(model="smollm2", messages=QUESTION)
    assert answer.choices[0].message.content == "Paris."


async def test_openai_client_gets_a_stream(bench: Bench, client: openai.AsyncOpenAI) -> None:
    bench.model()
    await bench.serving()
    stream = await client.chat.completions.create(model="ns/smol", messages=QUESTION, stream=True)
    pieces = [chunk.choices[0].delta.content async for chunk in stream]
    assert pieces == ["", *TOKENS]


async def test_openai_client_lists_models(bench: Bench, client: openai.AsyncOpenAI) -> None:
    bench.model()
    bench.model(name="b", served_name="shared")
    bench.model(namespace="other", name="c", served_name="shared")
    bench.model(name="off", served_name="off", pinned=0)
    models = [model.id async for model in client.models.list()]
    assert sorted(models) == [
        "ns/b",
        "other/c",
        "smollm2",
    ]
    assert "off" not in models
    assert (await client.models.retrieve("smollm2")).owned_by == "ns"
    assert (await client.models.retrieve("other/c")).id == "other/c"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/v1/chat/completions", "{", 400, "not valid JSON"),
        ("POST", "/v1/chat/completions", "[]", 400, "must be a JSON object"),
        ("POST", "/v1/chat/completions", "{}", 400, "'model' is missing"),
        ("POST", "/v1/chat/completions", '{"model": 3}', 400, "'model' must be"),
        ("POST", "/v1/chat/completions", '{"model": "nope"}', 404, "'nope' does not exist"),
        ("POST", "/v1/chat/completions", '{"model": "twin"}', 400, "'a/twin' or 'b/twin'"),
        ("POST", "/v1/fine_tuning/jobs", "{}", 404, "no route '/v1/fine_tuning/jobs'"),
        ("POST", "/v1/chat/completions/", "{}", 404, "no route"),
        ("POST", "/v1/rerank", '{"model": "smollm2"}', 404, "no route '/v1/rerank'"),
        ("GET", "/v1/chat/completions", "", 405, "takes POST"),
        ("POST", "/v1/models", "{}", 405, "takes GET"),
        ("GET", "/v1/models/nope", "", 404, "'nope' does not exist"),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong(
    bench: Bench, method: str, path: str, body: str, status: int, says: str
) -> None:
    bench.model()
    bench.model(namespace="a", name="twin", served_name="twin")
    bench.model(namespace="b", name="twin", served_name="twin", paths=frozenset({"/v1/rerank"}))
    async with bench.session.request(method, bench.url + path, data=body) as response:
        error = (await response.json())["error"]
        assert response.status == status
        assert says in error["message"]
        assert error["type"] == "invalid_request_error"


async def test_errors_are_the_openai_clients_own(bench: Bench, client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="nope", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


async def test_an_extra_path_is_open_for_engines_that_serve_it(bench: Bench) -> None:
    bench.model(paths=frozenset({"/v1/rerank"}))
    engine = await bench.serving()
    async with bench.post("/v1/rerank") as response:
        assert response.status == 200
    assert engine.asked[0].target == "/v1/rerank"


async def test_a_body_is_untouched_when_it_names_the_served_name(bench: Bench) -> None:
    bench.model()
    engine = await bench.serving()
    body = b'{"seed": 12345678901234567, "model" :"smollm2",  "x":1.10}'
    url = f"{bench.url}/v1/completions?trace=1"
    async with bench.session.post(url, data=body) as response:
        assert response.status == 200
    assert engine.asked[0].body == body
    assert engine.asked[0].target == "/v1/completions?trace=1"


async def test_only_the_models_name_is_rewritten(bench: Bench) -> None:
    bench.model()
    engine = await bench.serving()
    async with bench.post(model="ns/smol", temperature=0.7, stop=["\u00e9"]) as response:
        assert response.status == 200
    expected = {"model": "smollm2", "messages": [], "temperature": 0.7, "stop": ["\u00e9"]}
    assert engine.asked[0].json == expected


async def test_a_form_is_routed_by_its_model_field(bench: Bench) -> None:
    path = "/v1/audio/transcriptions"
    bench.model(paths=frozenset({path}))
    answered = {"text": "hello"}

    async def transcribe(exchange: Exchange) -> None:
        await exchange.json(answered)

    engine = await bench.serving(transcribe)
    form = aiohttp.FormData()
    form.add_field("model", "ns/smol")
    form.add_field("file", b"\x00\r\n--\xff\r\n", filename="a.wav", content_type="audio/wav")
    async with bench.session.post(bench.url + path, data=form) as response:
        assert await response.json() == answered
    assert b'name="model"\r\n\r\nsmollm2\r\n' in engine.asked[0].body
    assert b"\x00\r\n--\xff\r\n" in engine.asked[0].body


async def test_hop_by_hop_fields_stay_on_their_hop(bench: Bench) -> None:
    async def answer(exchange: Exchange) -> None:
        data = b"{}"
        await exchange.head(
            200,
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
            "Keep-Alive: timeout=5",
            "X-Request-Id: engine-1",
            "Connection: keep-alive, X-Secret",
            "X-Secret: 1",
        )
        await exchange.send(data)

    bench.model()
    engine = await bench.serving(answer)
    headers = {
        "Connection": "keep-alive, X-Drop",
        "X-Drop": "1",
        "TE": "trailers",
        "Accept-Encoding": "gzip",
        "Authorization": "Bearer k",
        "X-Keep": "1",
    }
    url = f"{bench.url}/v1/chat/completions"
    async with bench.session.post(url, json={"model": "smollm2"}, headers=headers) as response:
        assert response.headers["X-Request-Id"] == "engine-1"
        assert not {"Keep-Alive", "X-Secret"} & set(response.headers)
    got = engine.asked[0].headers
    assert got["host"] == f"127.0.0.1:{engine.port}"
    assert got["x-keep"] == "1"
    assert got["authorization"] == "Bearer k"
    assert not {"x-drop", "te", "accept-encoding", "connection"} & got.keys()


@pytest.mark.parametrize("status", [400, 422, 500, 503])
async def test_an_engines_error_is_forwarded_as_it_is(bench: Bench, status: int) -> None:
    error = {"error": {"message": "max_tokens is too large", "type": "BadRequestError"}}

    async def refuse(exchange: Exchange) -> None:
        await exchange.json(error, status)

    bench.model()
    engine = await bench.serving(refuse)
    async with bench.post(stream=True) as response:
        assert response.status == status
        assert await response.json() == error
    assert len(engine.asked) == 1


async def test_requests_go_to_the_least_loaded_replica(bench: Bench) -> None:
    release = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        await release.wait()
        await exchange.json({})

    bench.model()
    engines = [await bench.serving(wait, uid) for uid in ("pod-1", "pod-2", "pod-3")]
    asking = [asyncio.create_task(bench.ask()) for _ in range(9)]
    await until(lambda: sum(len(e.asked) for e in engines) == 9)
    assert [len(e.asked) for e in engines] == [3, 3, 3]
    release.set()
    assert [status for status, _ in await asyncio.gather(*asking)] == [200] * 9


async def test_a_stream_is_not_changed_on_its_way(bench: Bench) -> None:
    pieces = [event("", role="assistant"), event("a"), b": ping\n\n", event("b")]

    async def stream(exchange: Exchange) -> None:
        await exchange.events(*pieces)

    bench.model()
    await bench.serving(stream)
    async with bench.post(stream=True) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert await response.read() == b"".join(pieces) + b"data: [DONE]\n\n"


async def test_metrics_count_requests_by_model_and_code(bench: Bench) -> None:
    bench.model()
    await bench.serving()
    assert (await bench.ask())[0] == 200
    assert (await bench.ask(model="invented-by-a-client"))[0] == 404
    async with bench.session.get(f"{bench.admin}/metrics") as response:
        text = await response.text()
    assert 'glowplug_gateway_requests_total{code="200",model="smol",namespace="ns"} 1.0' in text
    assert 'glowplug_gateway_requests_total{code="404",model="",namespace=""} 1.0' in text
    assert "invented" not in text
    assert 'glowplug_gateway_usable_replicas{model="smol",namespace="ns"} 1.0' in text
    bench.gateway.fleet.remove_model("ns/smol")
    async with bench.session.get(f"{bench.admin}/metrics") as response:
        assert 'code="200",model="smol",namespace="ns"' not in await response.text()
