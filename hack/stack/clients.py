"""Clients that ask without a pause while something changes, and remember every answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event

import aiohttp

from stack.ask import Answer, ask
from stack.stack import Stack

SOAK = "GLOWPLUG_SOAK" in os.environ
REQUESTS = 1000 if SOAK else 50
"""How many requests a change has to survive: all of the claim under `make soak`, else a sample."""
TIMEOUT_S = 3600 if SOAK else 1800
"""For one test: where others use the machine, its engines answer ten times as slowly."""
MOST_TOKENS = 4
LONG_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Habit:
    """How a client treats its connection: kept alive, or a new one each time; rest in seconds."""

    keeps: bool
    rest: float = 0.0


HABITS = (
    *(Habit(True), Habit(True)),
    *(Habit(False), Habit(False, 0.2)),
    # Connections that rest, as those of an application's pool do.
    *(Habit(True, 1.0), Habit(True, 4.0)),
)


@dataclass(slots=True)
class Campaign:
    """The answers so far, of streaming and of plain requests."""

    streamed: list[Answer] = field(default_factory=list)
    plain: list[Answer] = field(default_factory=list)

    @property
    def sent(self) -> int:
        """How many requests have ended."""
        return len(self.streamed) + len(self.plain)

    @property
    def failed(self) -> list[Answer]:
        """Answers that did not come whole."""
        return [one for one in (*self.streamed, *self.plain) if not one.finished or one.error]

    def turns(self) -> Iterator[int]:
        """Count the rounds of change: one, and under `make soak` as many as the requests need."""
        turn = 1
        yield turn
        while self.sent < REQUESTS:
            if SOAK:
                turn += 1
                yield turn
            else:
                time.sleep(0.2)

    def __str__(self) -> str:
        """Say how it went."""
        both = f"{len(self.streamed)} streaming, {len(self.plain)} plain"
        return f"{self.sent} requests ({both}), {len(self.failed)} failed"


@contextmanager
def clients(stack: Stack, name: str) -> Iterator[Campaign]:
    """Keep a client of each habit asking, in turn streaming and plain, for 1 to 4 tokens.

    Each has a connection of its own; nothing is ever sent twice.
    """
    campaign = Campaign()

    async def client(number: int, habit: Habit, stop: Event) -> None:
        connector = aiohttp.TCPConnector(force_close=not habit.keeps)
        async with aiohttp.ClientSession(connector=connector) as session:
            turn = number
            while not stop.is_set():
                stream = turn % 2 == 0
                tokens = 1 + turn // 2 % MOST_TOKENS
                answers = campaign.streamed if stream else campaign.plain
                asked = ask(
                    stack.gateway_url,
                    name,
                    "Hi",
                    max_tokens=tokens,
                    stream=stream,
                    chat=False,
                    session=session,
                )
                answers.append(await _once(asked))
                turn += 1
                await asyncio.sleep(habit.rest)

    with _beside(lambda stop: [client(n, habit, stop) for n, habit in enumerate(HABITS)]):
        yield campaign


@contextmanager
def long_streams(stack: Stack, name: str, count: int) -> Iterator[list[Answer]]:
    """Keep `count` streams of many tokens running; the answers that have ended."""
    answers: list[Answer] = []

    async def client(number: int, stop: Event) -> None:
        prompt = f"Tell me a long story about a ship with {number + 2} masts."
        async with aiohttp.ClientSession() as session:
            while not stop.is_set():
                asked = ask(
                    stack.gateway_url, name, prompt, max_tokens=LONG_TOKENS, session=session
                )
                answers.append(await _once(asked))

    with _beside(lambda stop: [client(number, stop) for number in range(count)]):
        yield answers


@contextmanager
def _beside(start: Callable[[Event], list[Coroutine[None, None, None]]]) -> Iterator[None]:
    """Run what `start` makes in a thread, beside the block; at its end wait for the last request.

    A thread, so that no kubectl of the test makes a client wait.
    """
    stop = Event()

    async def run() -> None:
        await asyncio.gather(*start(stop))

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, run())
        try:
            yield
        finally:
            stop.set()
            running.result()


async def _once(asked: Awaitable[Answer]) -> Answer:
    try:
        return await asked
    except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
        when = datetime.now(UTC).time().isoformat("milliseconds")
        return Answer(error=f"{when} {error!r}")
