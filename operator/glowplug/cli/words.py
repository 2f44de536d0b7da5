"""Numbers and states in words, the same in every command."""

from __future__ import annotations

from datetime import UTC, datetime

from glowplug.cli.view import ColdStart, Model

NOTHING = "-"
SCALED_TO_ZERO = "ScaledToZero"


def serving(model: Model) -> str:
    """Say whether a request would be answered now."""
    ready = model.condition("Ready")
    if ready is None:
        return "not seen yet"
    if ready.status != "True":
        return f"no: {ready.reason}" if ready.reason else "no"
    return "on request" if ready.reason == SCALED_TO_ZERO else "yes"


def tiers(model: Model) -> str:
    """Say what the replicas hold: `2 hot, 1 starting`."""
    held = [f"{count} {name}" for name, count in model.tiers.items() if count]
    return ", ".join(held) or "none"


def replicas(model: Model) -> str:
    """Say how many are ready of how many there are, and where that is going."""
    count = f"{model.ready}/{model.replicas}"
    if model.pinned is not None:
        return f"{count} (pinned at {model.pinned})"
    if model.desired is not None and model.desired != model.replicas:
        return f"{count} -> {model.desired}"
    return count


def typical_start(cold_start: ColdStart) -> str:
    """Say how long a start from zero takes."""
    if cold_start.p50 is None:
        return NOTHING
    return f"{seconds(cold_start.p50)} (n={cold_start.samples})"


def seconds(value: float | None) -> str:
    """Say a duration in seconds; two digits after the point only where they tell something."""
    if value is None:
        return NOTHING
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def dollars(per_hour: float | None) -> str:
    """Say a price."""
    return NOTHING if per_hour is None else f"{per_hour:.2f}"


def ago(stamp: str | None, now: datetime) -> str:
    """Say how long ago an RFC 3339 time was; an empty string for none."""
    if not stamp:
        return ""
    try:
        then = datetime.fromisoformat(stamp)
    except ValueError:
        return f"at {stamp}"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    age = max(0, int((now - then).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if age >= size:
            return f"{age // size} {unit} ago"
    return f"{age} s ago"


def count(number: float | None) -> str:
    """Say a number of requests; only fractions have a point."""
    return NOTHING if number is None else f"{number:.10g}"
