"""The conditions of a GET on immutable content: Range and If-Match; pure."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return (first, end) of the bytes asked for, None when no byte can be given.

    Without a Range, and with one of another form, that is everything (RFC 9110, 14.2).
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or found[1] == found[2] == "":
        return 0, size
    if not found[1]:
        return (max(0, size - int(found[2])), size) if int(found[2]) and size else None
    first = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    return (first, end) if first < end else None


def matches(header: str | None, etag: str) -> bool:
    """Whether an If-Match, if there is one, names this ETag."""
    return header is None or header.strip() == "*" or etag in re.split(r"\s*,\s*", header.strip())
