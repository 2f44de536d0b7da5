"""Answers that are not an engine's: OpenAI's error shape, as JSON or as an SSE event."""

import orjson

from glowplug.gateway.proxy import Headers

JSON_TYPE = (b"content-type", b"application/json")


class Refusal(Exception):  # noqa: N818
    """Why a request is not answered by an engine; the message ends in what to do about it.

    param: the key of the body at fault; retry_after: s.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    @property
    def body(self) -> bytes:
        """{"error": {...}} as OpenAI's clients read it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return error_body(self.message, kind, code=self.code, param=self.param)

    @property
    def headers(self) -> Headers:
        """The head that goes with the body."""
        headers = [JSON_TYPE]
        if self.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(self.retry_after))))
        return headers


def error_body(
    message: str, kind: str, *, code: str | None = None, param: str | None = None
) -> bytes:
    """OpenAI's error object."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return orjson.dumps({"error": error})


def reject(status: int, message: str) -> tuple[Headers, bytes]:
    """What the proxy answers to bytes that are no valid request."""
    refusal = Refusal(status, message)
    return refusal.headers, refusal.body
