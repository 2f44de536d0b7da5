"""One engine's answer on its way to the client.

Nothing is forwarded before the first byte of the engine's body: until then another engine may
still answer instead, and the status is still open unless comments have been sent.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from glowplug.gateway import sse
from glowplug.gateway.progress import Progress
from glowplug.gateway.proxy import Headers, Reply
from glowplug.gateway.proxy.reply import Source
from glowplug.gateway.proxy.wire import end_to_end, has_body
from glowplug.gateway.refusal import error_body

_DONE = b"[DONE]"
_LONGEST_ERROR = 64 * 1024


class Answer:
    """A Sink that forwards to a Reply.

    on_first: called once, when the first content is forwarded.
    """

    def __init__(self, reply: Reply, progress: Progress | None, on_first: Callable[[], None]):
        self.forwarded = False
        self._reply = reply
        self._progress = progress
        self._on_first = on_first
        self._told_first = False
        self._status = 0
        self._headers: Headers = []
        self._unframed = False
        self._events = False
        self._content = sse.ContentWatch()
        self._tail = b""
        self._error = bytearray()
        self._wrapping = False  # an error that has to become an event

    # What the engine's connection calls.

    def on_source(self, source: Source | None) -> None:
        """The engine's connection: it waits while the client is slow."""
        self._reply.draw_from(source)

    def on_head(self, status: int, headers: Headers, *, unframed: bool) -> None:
        """The engine's head, kept back until its body begins."""
        self._status = status
        self._headers = headers
        self._unframed = unframed
        self._events = sse.is_event_stream(headers)

    def on_data(self, data: bytes) -> None:
        """A piece of the engine's body."""
        if not self.forwarded:
            self._begin()
        if self._wrapping:
            if len(self._error) < _LONGEST_ERROR:
                self._error += data
            return
        self._reply.write(data)
        if self._events:
            self._tail = (self._tail + data)[-16:] if len(data) < 16 else data[-16:]
        if not self._told_first and (not self._events or self._content.feed(data)):
            self._told_first = True
            if self._status < 400:
                self._on_first()

    # What the service calls at the end.

    @property
    def looks_cut(self) -> bool:
        """Whether a body that ended with its connection ended too early, as far as one can tell."""
        return self._unframed and self._events and _DONE not in self._tail

    def finish(self) -> None:
        """The engine's answer is whole."""
        if not self.forwarded:
            self._begin()
        if self._wrapping:
            self._reply.write(sse.error_event(_as_error(self._status, bytes(self._error))))
        self._reply.finish()

    def cut(self, reason: str) -> None:
        """The engine ended in the middle: say so, and never look whole."""
        if not (self._events or self._wrapping):
            self._reply.abort()
            return
        if not self._wrapping and not self._tail.endswith((b"\n\n", b"\r\n\r\n")):
            self._reply.write(b"\n\n")  # end the event that was cut short
        body = error_body(
            f"The engine failed in the middle of its answer ({reason}). Send the request again.",
            "server_error",
            code="engine_failed",
        )
        self._reply.write(sse.error_event(body))
        self._reply.cut()

    def _begin(self) -> None:
        self.forwarded = True
        if self._progress is not None:
            self._progress.stop()
        if self._reply.status == 0:
            self._reply.start(self._status, end_to_end(self._headers), self._length())
        elif self._status != 200 or not self._events:
            self._wrapping = True

    def _length(self) -> int | None:
        if not has_body(self._status):
            return 0
        lengths = (int(value) for name, value in self._headers if name == b"content-length")
        return next(lengths, None)


def _as_error(status: int, body: bytes) -> bytes:
    """An engine's answer that came too late to set the status -> an error object on one line."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict) and status != 200:
        if isinstance(parsed.get("error"), dict):
            return orjson.dumps(parsed)
        text = parsed.get("message") or parsed.get("detail") or parsed.get("error")
        if isinstance(text, str):
            return error_body(text, _kind(status), code=str(status))
    if status == 200:
        return error_body("The engine did not answer with an event stream.", "server_error")
    return error_body(f"The engine answered with status {status}.", _kind(status), code=str(status))


def _kind(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"
