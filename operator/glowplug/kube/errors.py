"""What the API server refuses, as exceptions that callers can tell apart."""

# Named after the reasons the API server gives, so without an Error suffix.
# ruff: noqa: N818

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class ApiError(Exception):
    """A request that the API server refused or that never got an answer.

    `status` is the HTTP status (0 when no answer came), `reason` the server's CamelCase word,
    `message` its sentence, `details` the `details` object of its Status, {} without one.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{message} ({status} {reason})" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.retry_after = retry_after


class Unreachable(ApiError):
    """No answer: refused, cut or timed out.

    A write may or may not have been done, except when `never_sent`.
    """

    never_sent = False


class NotFound(ApiError):
    """404: the object, or its kind, does not exist."""


class AlreadyExists(ApiError):
    """409 on create: the name is taken."""


class Conflict(ApiError):
    """409 on change: a precondition (resourceVersion, uid, field owner) does not hold."""


class Invalid(ApiError):
    """422 or 400: the server's sentence names the field."""


class Forbidden(ApiError):
    """403: RBAC, admission or quota said no."""


class Expired(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""


class TooManyRequests(ApiError):
    """429: the server is shedding load; `retry_after` says for how long."""


_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: Invalid,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    422: Invalid,
    429: TooManyRequests,
}


def error_from(status: int, body: bytes, retry_after: str | None = None) -> ApiError:
    """The exception for a response: its Status object if there is one, else its text."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        parsed = {"message": body.decode("utf-8", "replace").strip()[:500]}
    return error_from_status(status, parsed, retry_after)


def error_from_status(
    status: int, body: Mapping[str, Any], retry_after: str | None = None
) -> ApiError:
    """The exception for a Status object, as in an error response or a watch's ERROR event."""
    reason = str(body.get("reason") or "Unknown")
    kind = AlreadyExists if reason == "AlreadyExists" else _BY_STATUS.get(status, ApiError)
    details = body.get("details")
    return kind(
        status,
        reason,
        str(body.get("message") or f"the API server answered {status}"),
        details if isinstance(details, dict) else {},
        _seconds(retry_after),
    )


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None
