"""From zero to an answer on the real node: the promise the product is named for."""

from __future__ import annotations

import asyncio
import json

import pytest

from stack.ask import ask
from stack.stack import Stack

FRANCE = "What is the capital of France?"

pytestmark = pytest.mark.timeout(900)


async def test_first_request_at_zero_is_answered_and_its_stages_add_up(stack: Stack) -> None:
    name = stack.deploy(stack.smollm2("wake"))
    await stack.until(lambda: stack.condition(name, "Ready", reason="ScaledToZero"), 60)
    assert stack.pods(name) == []

    answer = await ask(stack.gateway_url, name, FRANCE)

    assert answer.finished, answer
    assert "Paris" in answer.text
    assert answer.first_token is not None
    last = await stack.until(lambda: stack.status(name).get("coldStart", {}).get("last"), 60)
    stages = last["stages"]
    assert sum(stages.values()) == pytest.approx(answer.first_token, rel=0.05, abs=0.5)
    assert stages["unattributed"] <= 0.05 * last["total"]
    assert stages["restore"] > 0
    assert stages["load"] > 0


async def test_a_snapshot_is_taken_at_first_use_and_restored_at_the_next(stack: Stack) -> None:
    name = stack.deploy(stack.smollm2("snap"))
    first = await ask(stack.gateway_url, name, FRANCE)
    assert first.finished, first
    taken = await stack.until(lambda: stack.condition(name, "SnapshotReady", status="True"), 180)
    assert taken
    digest = stack.status(name)["snapshot"]["digest"]
    await stack.until(lambda: stack.pods(name) == [], 180)

    second = await ask(stack.gateway_url, name, FRANCE)

    assert second.text == first.text
    launch = stack.pods(name)[0]["spec"]["containers"][0]["env"]
    config = next(json.loads(one["value"]) for one in launch if one["name"] == "GLOWPLUG_LAUNCH")
    assert config["restore"]["kind"] == "snapshot"
    assert config["restore"]["digest"] == digest


async def test_a_slow_start_speaks_from_the_fifth_second_and_survives_the_engines_death(
    stack: Stack,
) -> None:
    name = stack.deploy(stack.smollm2("slow", start_delay=8))

    asking = asyncio.create_task(ask(stack.gateway_url, name, FRANCE))
    killed = await stack.kill_first_engine(name, 180)
    answer = await asking

    assert killed, "no engine process was seen before the first token"
    assert answer.finished, answer
    assert "Paris" in answer.text
    assert answer.error is None
    assert answer.comments, "a client that waits past five seconds hears why"
    assert 4.5 <= answer.comments[0].at <= 15
    gaps = [b.at - a.at for a, b in zip(answer.comments, answer.comments[1:], strict=False)]
    assert max(gaps, default=0.0) < 10


async def test_the_init_container_form_serves_an_image_that_runs_no_launcher(stack: Stack) -> None:
    body = stack.smollm2("init")
    body["spec"]["engine"]["restore"] = "Init"
    name = stack.deploy(body)

    answer = await ask(stack.gateway_url, name, FRANCE)

    assert answer.finished, answer
    assert "Paris" in answer.text
