"""Clients that stall are let go; those that wait for an answer are not."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from glowplug.gateway.gateway import Settings

from .bench import Bench
from .raw import HEAD, PLAIN, read_all, read_answer


@pytest.fixture
def settings(settings: Settings) -> Settings:
    limits = replace(
        settings.limits, head_timeout=0.1, stall_timeout=0.1, idle_timeout=0.2, linger=0.1
    )
    return replace(settings, limits=limits)


@pytest.mark.parametrize("start", [HEAD, PLAIN[:-5]])
async def test_a_request_that_stalls_is_ended(bench: Bench, start: bytes) -> None:
    reader, writer = await bench.connect()
    writer.write(start)
    answer = await read_all(reader)
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_head_sent_byte_by_byte_is_ended(bench: Bench) -> None:
    reader, writer = await bench.connect()
    reading = asyncio.create_task(read_all(reader))
    writer.write(HEAD)
    for _ in range(200):
        if reading.done():
            break
        writer.write(b"X")
        await asyncio.sleep(0.02)
    assert (await reading).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed(bench: Bench) -> None:
    reader, _ = await bench.connect()
    assert await read_all(reader) == b""


async def test_a_client_that_waits_for_its_answer_is_not_idle(bench: Bench) -> None:
    bench.model()
    reader, writer = await bench.connect()
    writer.write(PLAIN)
    await asyncio.sleep(0.5)
    await bench.serving()
    assert (await read_answer(reader))[0] == 200
