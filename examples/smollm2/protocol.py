"""The OpenAI wire format that this server speaks: requests in, bodies and events out."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine import Load, Piece, Usage

RAW_ROLE = "raw"  # worker.py's role for a prompt that takes no chat template
COMPLETION_TOKENS = 16  # OpenAI's default length of a completion


class RequestError(Exception):
    """The request cannot be served; the message names the field and says what is wrong."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@dataclass(slots=True)
class Request:
    """One checked request: what the worker is told, and how its answer is sent."""

    chat: bool
    model: str
    options: dict[str, Any]
    stream: bool
    include_usage: bool
    id: str = ""
    created: int = 0
    usage: Usage = field(default_factory=Usage)


def parse(body: Any, *, chat: bool, served_name: str) -> Request:
    """Check the JSON body of a request. Raises RequestError."""
    if not isinstance(body, dict):
        raise RequestError("The body must be a JSON object.")
    if (model := body.get("model")) != served_name:
        message = f"The model {model!r} does not exist here; this server has {served_name!r}."
        raise RequestError(message, param="model", status=404)
    if body.get("n") not in {None, 1}:
        raise RequestError("n: this server gives one choice for each request.", param="n")
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        raise RequestError("stream_options: must be an object.", param="stream_options")
    return Request(
        chat=chat,
        model=served_name,
        options={"messages": messages(body, chat=chat)} | sampling(body, chat=chat),
        stream=bool(body.get("stream")),
        include_usage=bool(stream_options.get("include_usage")),
        id=f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}",
        created=int(time.time()),
    )


def messages(body: Mapping[str, Any], *, chat: bool) -> list[dict[str, str]]:
    """Return the messages of a chat, or a completion's prompt as one raw message."""
    if not chat:
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise RequestError("prompt: must be a string that is not empty.", param="prompt")
        return [{"role": RAW_ROLE, "content": prompt}]
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise RequestError("messages: must be a list that is not empty.", param="messages")
    return [message(item, f"messages[{i}]") for i, item in enumerate(given)]


def message(item: Any, where: str) -> dict[str, str]:
    """Check one message of a chat; text parts are joined."""
    if not isinstance(item, dict):
        raise RequestError(f"{where}: must be an object.", param=where)
    role, content = item.get("role"), item.get("content")
    if role not in {"system", "developer", "user", "assistant"}:
        known = "system, developer, user or assistant"
        raise RequestError(f"{where}.role: must be {known}.", param=f"{where}.role")
    if isinstance(content, list) and all(is_text(part) for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise RequestError(f"{where}.content: must be text.", param=f"{where}.content")
    return {"role": "system" if role == "developer" else role, "content": content}


def is_text(part: Any) -> bool:
    """Whether a content part is text, the only kind that this model reads."""
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def sampling(body: Mapping[str, Any], *, chat: bool) -> dict[str, Any]:
    """Return the worker's names and checked values of the sampling options that are set."""
    older_name = body.get("max_completion_tokens") is None
    limit = "max_tokens" if older_name else "max_completion_tokens"
    options: dict[str, Any] = {
        "max_tokens": integer(limit, body.get(limit), low=1),
        "temperature": number("temperature", body.get("temperature"), low=0, high=2),
        "top_p": number("top_p", body.get("top_p"), low=0, high=1),
        "frequency_penalty": number(
            "frequency_penalty", body.get("frequency_penalty"), low=-2, high=2
        ),
        "presence_penalty": number(
            "presence_penalty", body.get("presence_penalty"), low=-2, high=2
        ),
        "stop_seqs": stop(body.get("stop")),
    }
    if not chat and options["max_tokens"] is None:
        options["max_tokens"] = COMPLETION_TOKENS
    return {name: value for name, value in options.items() if value is not None}


def integer(name: str, value: Any, *, low: int) -> int | None:
    """Check an optional integer."""
    if value is None:
        return None
    if type(value) is not int or value < low:
        raise RequestError(f"{name}: must be an integer of at least {low}.", param=name)
    return value


def number(name: str, value: Any, *, low: float, high: float) -> float | None:
    """Check an optional number between two bounds."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RequestError(f"{name}: must be a number from {low} to {high}.", param=name)
    return float(value)


def stop(value: Any) -> list[str] | None:
    """Return stop sequences, given as one string or several."""
    given = [value] if isinstance(value, str) else value
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(item, str) and item for item in given):
        raise RequestError("stop: must be a string or a list of strings.", param="stop")
    return given or None


def answer(request: Request, text: str, finish: str) -> dict[str, Any]:
    """Return the whole body of a plain answer."""
    said: dict[str, Any] = (
        {"message": {"role": "assistant", "content": text}} if request.chat else {"text": text}
    )
    choice = {"index": 0, "logprobs": None, "finish_reason": finish} | said
    name = "chat.completion" if request.chat else "text_completion"
    return head(request, name) | {"choices": [choice], "usage": usage(request.usage)}


def first_chunk(request: Request) -> dict[str, Any] | None:
    """Return the chunk that opens a stream: a chat's role."""
    return chunk(request, {"delta": {"role": "assistant", "content": ""}}) if request.chat else None


def piece_chunk(request: Request, piece: Piece) -> dict[str, Any]:
    """Return the chunk of one piece of text, or of the end."""
    if not request.chat:
        return chunk(request, {"text": piece.text}, piece.finish)
    return chunk(request, {"delta": {"content": piece.text} if piece.text else {}}, piece.finish)


def usage_chunk(request: Request) -> dict[str, Any]:
    """Return the chunk without choices that ends a stream whose client asked for the usage."""
    return chunk(request, None) | {"usage": usage(request.usage)}


def chunk(
    request: Request, said: Mapping[str, Any] | None, finish: str | None = None
) -> dict[str, Any]:
    """Return one chunk of a stream."""
    name = "chat.completion.chunk" if request.chat else "text_completion"
    choice = {"index": 0, "logprobs": None, "finish_reason": finish} | dict(said or {})
    with_usage = {"usage": None} if request.include_usage else {}
    return head(request, name) | {"choices": [] if said is None else [choice]} | with_usage


def head(request: Request, name: str) -> dict[str, Any]:
    """Return the fields that every body and chunk begins with."""
    return {"id": request.id, "object": name, "created": request.created, "model": request.model}


def usage(count: Usage) -> dict[str, int]:
    """Return OpenAI's usage object."""
    return {
        "prompt_tokens": count.prompt,
        "completion_tokens": count.completion,
        "total_tokens": count.prompt + count.completion,
    }


def error(message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """Return OpenAI's error object."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def event(data: dict[str, Any] | None) -> bytes:
    """Return one server-sent event; None is the end of the stream."""
    return b"data: " + (b"[DONE]" if data is None else json.dumps(data).encode()) + b"\n\n"


def metrics(load: Load, kv_usage: float, served_name: str) -> str:
    """Return the load as Prometheus text, by vLLM's names so that its dialect reads it.

    Written by hand because importing a client library would lengthen every cold start.
    """
    label = json.dumps(served_name, ensure_ascii=False)  # the same escapes as Prometheus text
    values = (
        ("num_requests_running", "gauge", "Requests that the model works on.", load.running),
        ("num_requests_waiting", "gauge", "Requests in the queue.", load.waiting),
        ("kv_cache_usage_perc", "gauge", "Part of the KV cache in use, 0 to 1.", kv_usage),
        ("prompt_tokens_total", "counter", "Prompt tokens read.", load.prompt_tokens_total),
        ("generation_tokens_total", "counter", "Tokens made.", load.generated_tokens_total),
        ("request_success_total", "counter", "Requests answered.", load.finished_total),
    )
    return "".join(
        f"# HELP vllm:{name} {text}\n# TYPE vllm:{name} {kind}\n"
        f"vllm:{name}{{model_name={label}}} {value}\n"
        for name, kind, text, value in values
    )
