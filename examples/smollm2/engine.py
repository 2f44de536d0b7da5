"""The server's side of the worker process: a queue, four slots, and an honest count of both."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import subprocess
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

SLOTS = 4  # sequences at once: more would only share the same few cores


class EngineError(Exception):
    """A request failed in the engine; `status` is the HTTP status that says whose fault it is."""

    def __init__(self, sentence: str, status: int = 500) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(slots=True)
class Usage:
    """Tokens of one request."""

    prompt: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer, or its end when `finish` says why it ended."""

    text: str = ""
    finish: str | None = None


@dataclass(slots=True)
class Load:
    """What the engine does now, and what it has done since it started."""

    running: int = 0
    waiting: int = 0
    prompt_tokens_total: int = 0
    generated_tokens_total: int = 0
    finished_total: int = 0


def spawn(command: Sequence[str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the worker with one end of a socket pair, its number as the last argument."""
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        process = subprocess.Popen([*command, str(number)], pass_fds=[number])
    return process, ours


class Engine:
    """Requests to the worker: at most `slots` run there, the others wait here in order.

    `context` is the model's longest sequence, in tokens, and None until the model is loaded.
    """

    def __init__(self, channel: socket.socket, *, slots: int = SLOTS) -> None:
        self.context: int | None = None
        self.load = Load()
        self._channel = channel
        self._slots = slots
        self._free = asyncio.Semaphore(slots)  # first come, first served
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._held: dict[int, Usage] = {}
        self._writer: asyncio.StreamWriter | None = None

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory and the worker is there to answer."""
        return self.context is not None

    @property
    def kv_usage(self) -> float:
        """Tokens in running sequences over the tokens that all slots can hold, 0 to 1."""
        if self.context is None:
            return 0.0
        held = sum(usage.prompt + usage.completion for usage in self._held.values())
        return min(1.0, held / (self._slots * self.context))

    async def run(self) -> None:
        """Read the worker's messages until it is gone; then no request waits for it any more."""
        reader, self._writer = await asyncio.open_connection(sock=self._channel)
        try:
            while line := await reader.readline():
                self._take(json.loads(line))
        finally:
            self.context = None
            for replies in self._replies.values():
                replies.put_nowait({"error": "The engine's worker process ended.", "status": 500})
            self._writer.close()

    async def stream(self, request: dict[str, Any], usage: Usage) -> AsyncGenerator[Piece, None]:
        """Yield the answer piece by piece; closing the iterator stops the work.

        `usage` is filled in while the request runs. Raises EngineError.
        """
        await self._wait_for_slot()
        number = next(self._numbers)
        self._replies[number] = asyncio.Queue()
        self._held[number] = usage
        self.load.running += 1
        ended = False
        try:
            self._send({"id": number, **request})
            while not ended:
                message = await self._replies[number].get()
                ended = "error" in message or "finish" in message
                if piece := self._piece(message, usage):
                    yield piece
        finally:
            self.load.running -= 1
            del self._replies[number], self._held[number]
            if not ended and self.loaded:
                self._send({"id": number, "cancel": True})
            self._free.release()

    async def _wait_for_slot(self) -> None:
        self.load.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.load.waiting -= 1

    def _piece(self, message: dict[str, Any], usage: Usage) -> Piece | None:
        """Turn a reply into a piece of the answer and count its tokens."""
        if "error" in message:
            raise EngineError(message["error"], message["status"])
        usage.prompt = message.get("prompt_tokens", usage.prompt)
        if "finish" in message:
            usage.completion = message["completion_tokens"]
            self.load.prompt_tokens_total += usage.prompt
            self.load.finished_total += 1
            return Piece(finish=message["finish"])
        if "text" in message:
            usage.completion += 1
            self.load.generated_tokens_total += 1
            return Piece(text=message["text"])
        return None

    def _take(self, message: dict[str, Any]) -> None:
        if "loaded" in message:
            self.context = message["loaded"]["context"]
        elif replies := self._replies.get(message["id"]):  # else its client has left
            replies.put_nowait(message)

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is None or self._writer.is_closing():
            raise EngineError("The engine's worker process is gone; send the request again.", 503)
        self._writer.write(json.dumps(message).encode() + b"\n")
