"""Conditions of status, in the form that `kubectl wait --for=condition=...` reads."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

MAX_MESSAGE = 32768


def timestamp(now: float) -> str:
    """RFC 3339 in UTC, whole seconds, from seconds since the epoch."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def set_condition(  # noqa: PLR0917
    conditions: Sequence[dict[str, Any]],
    type: str,
    status: Literal["True", "False", "Unknown"],
    reason: str,
    message: str,
    now: float,
    observed_generation: int,
) -> list[dict[str, Any]]:
    """Return the conditions with one of them set; the order of the others stays.

    `lastTransitionTime` moves only when `status` does. `now` is in seconds since the epoch.
    """
    before = next((c for c in conditions if c.get("type") == type), None)
    unchanged = before is not None and before.get("status") == status
    since = before.get("lastTransitionTime") if before is not None and unchanged else None
    after = {
        "type": type,
        "status": status,
        "reason": reason,
        "message": message[:MAX_MESSAGE],
        "lastTransitionTime": since or timestamp(now),
        "observedGeneration": observed_generation,
    }
    if before is None:
        return [*conditions, after]
    return [after if c is before else c for c in conditions]


def condition(conditions: Sequence[dict[str, Any]], type: str) -> dict[str, Any] | None:
    """The condition of this type, or None."""
    return next((c for c in conditions if c.get("type") == type), None)
