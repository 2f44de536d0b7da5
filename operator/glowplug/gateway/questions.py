"""What the gateway reads of a request: its path, and the model that its body names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from glowplug.gateway import multipart
from glowplug.gateway.proxy import Request
from glowplug.gateway.refusal import Refusal

MODELS = "/v1/models"
NEVER_STREAMED = frozenset({"/v1/embeddings"})
COMMON = frozenset({"/v1/chat/completions", "/v1/completions"}) | NEVER_STREAMED


@dataclass(frozen=True, slots=True)
class Question:
    """A body that names a model. stream: whether the client asked for an event stream."""

    model: str
    stream: bool
    parsed: dict[str, Any] | multipart.Form

    def renamed(self, model: str) -> bytes:
        """The body with another model's name in it."""
        if isinstance(self.parsed, multipart.Form):
            return self.parsed.replaced("model", model.encode())
        return orjson.dumps(self.parsed | {"model": model})


def path_of(request: Request) -> str:
    """The path without its query."""
    return _split(request)[0].decode("latin-1")


def query_of(request: Request) -> bytes:
    """The query with its question mark, or nothing."""
    return _split(request)[1]


def _split(request: Request) -> tuple[bytes, bytes]:
    target = request.target
    if not target.startswith(b"/"):  # absolute form, as sent to proxies
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    path, mark, query = target.partition(b"?")
    return path, mark + query


def model_in(path: str) -> str:
    """The model that /v1/models/<id> names; empty for the list."""
    return unquote(path.removeprefix(MODELS)).strip("/")


def read(request: Request) -> Question:
    """The model and stream keys of a JSON or multipart body. Raises Refusal naming the fault."""
    if (request.header(b"content-encoding") or b"identity").lower() != b"identity":
        raise Refusal(415, "Compressed request bodies are not supported; send the body as it is.")
    content_type = request.header(b"content-type") or b""
    if content_type.lower().startswith(b"multipart/form-data"):
        return _read_form(content_type, request.body)
    return _read_json(request.body)


def _read_json(text: bytes) -> Question:
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"The request body is not valid JSON: {error.msg}.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The request body must be a JSON object with the key 'model'.")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _no_model("is missing" if "model" not in body else "must be a non-empty string")
    return Question(model=model, stream=body.get("stream") is True, parsed=body)


def _read_form(content_type: bytes, text: bytes) -> Question:
    try:
        form = multipart.Form.parse(content_type, text)
        model = (form.value("model") or b"").decode()
        stream = (form.value("stream") or b"").lower() == b"true"
    except ValueError as error:
        raise Refusal(400, f"The form in the request body cannot be read: {error}.") from None
    if not model:
        raise _no_model("is missing")
    return Question(model=model, stream=stream, parsed=form)


def _no_model(problem: str) -> Refusal:
    return Refusal(
        400,
        f"The key 'model' {problem}. GET {MODELS} lists the models served here.",
        code="invalid_model",
        param="model",
    )


def no_such_path(path: str) -> Refusal:
    """The answer to a path that no engine here serves."""
    return Refusal(
        404,
        f"There is no route '{path}'. This gateway serves POST {', '.join(sorted(COMMON))} "
        f"and GET {MODELS}.",
        code="unknown_url",
    )
