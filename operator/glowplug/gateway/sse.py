"""Server-sent events: the gateway's comments and error events, and the search for content."""

from typing import Any

import orjson

from glowplug.gateway.proxy import Headers

HEAD: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would otherwise keep the comments to itself
]
_ENOUGH = 64 * 1024


def comment(stage: str, elapsed: float, estimate: float | None) -> bytes:
    """A line that SSE clients skip: which stage a held request waits for. Times in s."""
    guess = "" if estimate is None else f" estimate={estimate:.0f}s"
    return f": glowplug stage={stage} elapsed={elapsed:.1f}s{guess}\n\n".encode()


def error_event(body: bytes) -> bytes:
    """An error object as an event. body: JSON without line breaks."""
    return b"data: %b\n\n" % body


def is_event_stream(headers: Headers) -> bool:
    """Whether a response says that it is an event stream."""
    return any(
        name == b"content-type" and value.strip().lower().startswith(b"text/event-stream")
        for name, value in headers
    )


class ContentWatch:
    """Finds the first piece of an event stream that carries content.

    The first chunk of most engines names a role and nothing else; a client's time to first token
    ends with the one after it.
    """

    __slots__ = ("_rest", "found")

    def __init__(self) -> None:
        self.found = False
        self._rest = b""

    def feed(self, data: bytes) -> bool:
        """Take bytes as forwarded; True once, with the piece in which content begins."""
        if self.found:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.found = any(_carries_content(line) for line in lines) or len(self._rest) > _ENOUGH
        return self.found


def _carries_content(line: bytes) -> bool:
    if not line.startswith(b"data:"):
        return False
    try:
        event = orjson.loads(line[5:])
    except orjson.JSONDecodeError:
        return True  # "[DONE]", or a shape that is not ours to judge
    if not isinstance(event, dict):
        return True
    choices = event.get("choices")
    if isinstance(choices, list):
        return any(isinstance(choice, dict) and _says_something(choice) for choice in choices)
    kind = event.get("type")
    if isinstance(kind, str) and kind.startswith("response."):
        return kind.endswith(".delta")
    return True


def _says_something(choice: dict[str, Any]) -> bool:
    if choice.get("text") or choice.get("finish_reason"):
        return True
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(value for key, value in delta.items() if key != "role")
