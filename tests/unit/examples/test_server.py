"""The example's server: a queue that is real, metrics that are honest, an end without cut answers.

The whole server runs, worker process included; only mistral.rs itself is a stand-in here. The model
answers for real in tests/e2e.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import openai
import pytest
from served import Served, until

Start = Callable[..., Served]
ASK = [{"role": "user", "content": "count for me"}]
ENDLESS = 100_000


def client(served: Served) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


async def ask(served: Served, **options) -> str:
    """The text of a streamed chat."""
    options = {"model": "tiny", "messages": ASK, "stream": True} | options
    async with client(served) as api:
        chunks = await api.chat.completions.create(**options)
        return "".join([c.choices[0].delta.content or "" async for c in chunks])


async def shows(served: Served, **wanted: float) -> None:
    """Wait until /metrics shows these samples."""

    def all_there() -> bool:
        samples = served.metrics()
        return all(samples[name] == value for name, value in wanted.items())

    await asyncio.to_thread(until, all_there)


def test_health_answers_while_the_model_loads(start: Start, gate: Path) -> None:
    served = start(STUB_LOAD_GATE=str(gate))
    until(lambda: served.health() == 503)
    gate.touch()
    until(lambda: served.health() == 200)


def test_the_start_delay_comes_before_everything_else(start: Start) -> None:
    served = start(GLOWPLUG_EXAMPLE_START_DELAY="1000")
    with pytest.raises(AssertionError, match="did not happen"):
        until(lambda: served.health() is not None, seconds=1)


async def test_a_request_while_loading_is_told_to_come_back(start: Start) -> None:
    served = start(STUB_LOAD_GATE="/never")
    await asyncio.to_thread(until, lambda: served.health() == 503)
    with pytest.raises(openai.InternalServerError, match="still loading") as refused:
        await ask(served)
    assert refused.value.status_code == 503


async def test_a_chat_in_one_piece_counts_its_tokens(served: Served) -> None:
    async with client(served) as api:
        answer = await api.chat.completions.create(model="tiny", messages=ASK)
    assert answer.choices[0].message.content == " 1 2 3 4 5"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 5)


@pytest.mark.parametrize("include_usage", [True, False])
async def test_a_stream_sends_each_token_and_the_usage_if_asked(
    served: Served, include_usage: bool
) -> None:
    async with client(served) as api:
        stream = await api.chat.completions.create(
            model="tiny",
            messages=ASK,
            stream=True,
            max_tokens=3,
            stream_options={"include_usage": include_usage},
        )
        chunks = [chunk async for chunk in stream]
    said = [c.choices[0].delta.content for c in chunks if c.choices]
    assert said == ["", " 1", " 2", " 3", None]
    usage = [c.usage.total_tokens for c in chunks if c.usage]
    assert usage == ([7] if include_usage else [])
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"


async def test_a_completion_streams_and_has_a_default_length(served: Served) -> None:
    async with client(served) as api:
        stream = await api.completions.create(model="tiny", prompt="one two", stream=True)
        said = [chunk.choices[0].text async for chunk in stream]
    assert said == [*(f" {n}" for n in range(1, 17)), ""]


async def test_what_the_engine_refuses_is_the_clients_fault(served: Served) -> None:
    long = [{"role": "user", "content": "word " * 2000}]
    with pytest.raises(openai.BadRequestError, match="Prompt sequence length"):
        await ask(served, messages=long)


async def test_four_run_and_the_others_wait_in_the_metrics(start: Start, gate: Path) -> None:
    served = start(STUB_TOKEN_GATE=str(gate))
    await asyncio.to_thread(until, lambda: served.health() == 200)
    asking = [asyncio.create_task(ask(served, max_tokens=20)) for _ in range(7)]
    await shows(served, num_requests_running=4, num_requests_waiting=3)
    await asyncio.to_thread(gate.touch)
    answers = await asyncio.gather(*asking)
    assert all(answer.endswith(" 20") for answer in answers)
    await shows(served, num_requests_running=0, num_requests_waiting=0, kv_cache_usage_perc=0)
    assert served.metrics()["generation_tokens_total"] == 7 * 20
    assert served.metrics()["request_success_total"] == 7


async def test_clients_that_leave_make_room_for_those_that_wait(served: Served) -> None:
    endless = [asyncio.create_task(ask(served, max_tokens=ENDLESS)) for _ in range(4)]
    await shows(served, num_requests_running=4)
    leaving = asyncio.create_task(ask(served, max_tokens=ENDLESS))
    waiting = asyncio.create_task(ask(served))
    await shows(served, num_requests_waiting=2)
    leaving.cancel()  # from the queue
    await shows(served, num_requests_running=4, num_requests_waiting=1)
    endless[0].cancel()  # from the engine
    assert await waiting == " 1 2 3 4 5"
    for task in endless:
        task.cancel()
    await shows(served, num_requests_running=0, num_requests_waiting=0)


async def test_kv_usage_is_tokens_held_over_tokens_that_fit(start: Start) -> None:
    served = start(STUB_TOKEN_GATE="/never")
    await asyncio.to_thread(until, lambda: served.health() == 200)
    prompt = [{"role": "user", "content": "word " * 399}]
    asking = [asyncio.create_task(ask(served, messages=prompt)) for _ in range(2)]
    await shows(served, kv_cache_usage_perc=2 * 400 / (4 * 1000))
    for task in asking:
        task.cancel()
    await shows(served, kv_cache_usage_perc=0)


async def test_sigterm_ends_what_runs_and_waits_but_takes_nothing_new(
    start: Start, gate: Path
) -> None:
    served = start(STUB_TOKEN_GATE=str(gate))
    await asyncio.to_thread(until, lambda: served.health() == 200)
    asking = [asyncio.create_task(ask(served, max_tokens=20)) for _ in range(6)]
    await shows(served, num_requests_running=4, num_requests_waiting=2)
    served.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(until, lambda: served.health() is None)
    assert not any(task.done() for task in asking)
    await asyncio.to_thread(gate.touch)
    assert all(answer.endswith(" 20") for answer in await asyncio.gather(*asking))
    assert await asyncio.to_thread(served.process.wait, 60) == 0


def test_sigterm_while_loading_ends_at_once(start: Start) -> None:
    served = start(STUB_LOAD_GATE="/never")
    until(lambda: served.health() == 503)
    served.process.terminate()
    assert served.process.wait(60) == 0


async def test_a_dead_worker_is_an_error_event_and_the_end(served: Served) -> None:
    asking = asyncio.create_task(ask(served, max_tokens=ENDLESS))
    await shows(served, num_requests_running=1)
    os.kill(served.worker(), signal.SIGKILL)
    with pytest.raises(openai.APIError, match="worker process ended"):
        await asking
    assert await asyncio.to_thread(served.process.wait, 60) == 1
