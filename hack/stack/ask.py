"""A client that asks the gateway as a user would, and notes when each part of the answer came."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(frozen=True, slots=True)
class Comment:
    """An SSE comment: seconds after sending, and its text without the colon."""

    at: float
    text: str


@dataclass(slots=True)
class Answer:
    """One completion. Times are seconds after sending; None where nothing came.

    `finished`: it came whole, to the end that the engine meant.
    """

    status: int = 0
    text: str = ""
    comments: list[Comment] = field(default_factory=list)
    first_token: float | None = None
    total: float = 0.0
    finished: bool = False
    error: str | None = None


def _ignore(_: str) -> None:
    """Take no notice of a token or comment."""


async def ask(
    url: str,
    model: str,
    prompt: str,
    *,
    max_tokens: int = 32,
    stream: bool = True,
    chat: bool = True,
    timeout: float = 300.0,
    on_token: Callable[[str], None] = _ignore,
    on_comment: Callable[[str], None] = _ignore,
    session: aiohttp.ClientSession | None = None,
) -> Answer:
    """Send one request to the gateway at `url` and read its answer to the end.

    Without `chat` the engine continues the prompt as it is, which costs it far fewer tokens.
    """
    if session is None:
        async with aiohttp.ClientSession() as own:
            return await ask(
                url,
                model,
                prompt,
                max_tokens=max_tokens,
                stream=stream,
                chat=chat,
                timeout=timeout,
                on_token=on_token,
                on_comment=on_comment,
                session=own,
            )
    body = {
        "model": model,
        "stream": stream,
        "max_tokens": max_tokens,
        "temperature": 0.0,
    }
    asked = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    answer = Answer()
    sent = time.monotonic()
    limit = aiohttp.ClientTimeout(total=timeout)
    async with session.post(url + path, json=body | asked, timeout=limit) as response:
        answer.status = response.status
        if response.status != 200:
            answer.error = await response.text()
        elif not stream:
            _take_whole(answer, await response.json())
        else:
            try:
                async for raw in response.content:
                    _take_line(
                        answer, raw.decode().strip(), time.monotonic() - sent, on_token, on_comment
                    )
            except aiohttp.ClientPayloadError:
                if answer.error is None:  # after an error event the gateway breaks the stream off
                    raise
    answer.total = time.monotonic() - sent
    return answer


def _take_whole(answer: Answer, body: dict[str, Any]) -> None:
    """Read the answer to a request without streaming."""
    [choice] = body["choices"]
    answer.text = (choice["message"]["content"] if "message" in choice else choice["text"]) or ""
    answer.finished = choice["finish_reason"] in ("stop", "length")


def _take_line(
    answer: Answer,
    line: str,
    at: float,
    on_token: Callable[[str], None],
    on_comment: Callable[[str], None],
) -> None:
    """Add one line of the event stream to the answer."""
    if line.startswith(":"):
        comment = Comment(at, line[1:].strip())
        answer.comments.append(comment)
        on_comment(comment.text)
    elif line == "data: [DONE]":
        answer.finished = True
    elif line.startswith("data: "):
        event = json.loads(line[6:])
        if "error" in event:
            answer.error = json.dumps(event["error"])
            return
        for choice in event.get("choices", []):
            token = choice.get("delta", {}).get("content") or choice.get("text") or ""
            if token and answer.first_token is None:
                answer.first_token = at
            answer.text += token
            if token:
                on_token(token)


async def load(
    url: str,
    model: str,
    *,
    clients: int,
    seconds: float,
    stop: asyncio.Event | None = None,
    max_tokens: int = 48,
) -> list[Answer]:
    """Keep `clients` requests in flight for `seconds` (or until `stop`) and return all answers."""
    stop = stop or asyncio.Event()
    until = time.monotonic() + seconds
    answers: list[Answer] = []

    async def client(number: int, session: aiohttp.ClientSession) -> None:
        turn = 0
        while time.monotonic() < until and not stop.is_set():
            prompt = f"Client {number}, turn {turn}: tell me one fact about the sea."
            answers.append(await ask(url, model, prompt, max_tokens=max_tokens, session=session))
            turn += 1

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        asyncio.TaskGroup() as group,
    ):
        for number in range(clients):
            group.create_task(client(number, session))
    return answers
