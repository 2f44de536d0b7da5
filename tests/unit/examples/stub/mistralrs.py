"""mistral.rs as far as worker.py uses it, without a model.

It keeps what the server must live with: loading takes a while, tokens come one by one at a pace,
two threads in the runner at once are an error, and a dropped iterator ends its sequence.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from types import SimpleNamespace
from typing import Any

CONTEXT = 1000
LOAD_GATE = os.environ.get("STUB_LOAD_GATE", "/")  # loaded once this path exists
TOKEN_GATE = os.environ.get("STUB_TOKEN_GATE", "/")  # no token before this path exists
TOKEN_SECONDS = float(os.environ.get("STUB_TOKEN_SECONDS", "0.01"))
ANSWER_TOKENS = 5


class ModelDType(Enum):
    Auto = "auto"


class Which:
    Plain = SimpleNamespace


class ChatCompletionRequest:
    def __init__(self, **fields: Any) -> None:
        self.fields = fields


class Runner:
    def __init__(self, **settings: Any) -> None:
        wait_for(LOAD_GATE)
        self.settings = settings
        self.borrowed = threading.Lock()

    def max_sequence_length(self) -> int:
        return CONTEXT

    def tokenize_text(self, text: str, special: bool, thinking: None) -> list[int]:
        with self.borrow():
            return list(range(len(text.split())))

    def send_chat_completion_request(self, request: ChatCompletionRequest) -> Iterator[Any]:
        with self.borrow():
            messages = request.fields["messages"]
            prompt = sum(len(f"{m['role']} {m['content']}".split()) for m in messages)
            if prompt > CONTEXT:
                raise ValueError(f"Prompt sequence length is greater than {CONTEXT}")
            return self.chunks(prompt, request.fields.get("max_tokens"))

    def chunks(self, prompt: int, limit: int | None) -> Iterator[Any]:
        count = limit or ANSWER_TOKENS
        wait_for(TOKEN_GATE)
        for number in range(1, count + 1):
            time.sleep(TOKEN_SECONDS)
            yield chunk(f" {number}", None, None)
        usage = SimpleNamespace(prompt_tokens=prompt, completion_tokens=count)
        yield chunk("", "length" if limit else "stop", usage)

    @contextmanager
    def borrow(self) -> Iterator[None]:
        if not self.borrowed.acquire(blocking=False):
            raise RuntimeError("Already borrowed")
        try:
            time.sleep(0.002)
            yield
        finally:
            self.borrowed.release()


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.01)


def chunk(text: str, finish: str | None, usage: Any) -> Any:
    choice = SimpleNamespace(delta=SimpleNamespace(content=text), finish_reason=finish)
    return SimpleNamespace(choices=[choice], usage=usage)
