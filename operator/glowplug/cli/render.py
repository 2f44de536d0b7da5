"""Status and explanations as tables and sentences; pure, the clock comes from outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glowplug.cli import words
from glowplug.cli.view import Condition, Model

# Conditions whose True is the bad news.
BAD_WHEN_TRUE = frozenset({"ScalingLimited"})
COLUMNS = ("NAME", "SERVING", "REPLICAS", "TIERS", "COLD START", "$/H")


def status(models: Sequence[Model], *, namespaces: bool = False) -> Table:
    """Return one line for each model."""
    table = Table(box=None, pad_edge=False)
    for column in (("NAMESPACE",) if namespaces else ()) + COLUMNS:
        table.add_column(column, justify="right" if column == "$/H" else "left", no_wrap=True)
    for model in models:
        table.add_row(*([model.namespace] if namespaces else []), *cells(model))
    return table


def cells(model: Model) -> tuple[str, ...]:
    """Return a model's line, in the order of COLUMNS."""
    return (
        model.name,
        words.serving(model),
        words.replicas(model),
        words.tiers(model),
        words.typical_start(model.cold_start),
        words.dollars(model.dollars_per_hour),
    )


def detail(model: Model, now: datetime) -> RenderableType:
    """Return a model's line and, below it, its conditions."""
    return Group(status([model]), Text(), conditions(model.conditions, now))


def conditions(given: Sequence[Condition], now: datetime) -> RenderableType:
    """Return every condition with its sentence, what is wrong first."""
    if not given:
        return Text(
            "The operator has not looked at it yet. Is it running? Try: "
            "kubectl get deployments -A -l app.kubernetes.io/name=glowplug"
        )
    table = Table(box=None, pad_edge=False, show_header=False)
    for condition in sorted(given, key=lambda c: not is_bad(c)):
        mark = Text("!", "bold red") if is_bad(condition) else Text("✓", "green")
        state = f"{condition.type}={condition.status}"
        table.add_row(mark, state, sentence(condition, now))
    return table


def is_bad(condition: Condition) -> bool:
    """Whether a condition is something that the user should look at."""
    good = "False" if condition.type in BAD_WHEN_TRUE else "True"
    return condition.status != good


def sentence(condition: Condition, now: datetime) -> str:
    """Return a condition's own sentence, its reason, and since when it holds."""
    since = words.ago(condition.since, now)
    known = ", ".join(part for part in (condition.reason, since) if part)
    return f"{condition.message or condition.type} ({known})" if known else condition.message


def explanation(model: Model, now: datetime) -> RenderableType:
    """Return why the model has the replicas that it has."""
    return Group(
        *(Text(line) for line in reasons(model, now)), Text(), conditions(model.conditions, now)
    )


def explanation_json(model: Model, now: datetime) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "namespace": model.namespace,
        "name": model.name,
        "pinned": model.pinned,
        "replicas": model.replicas,
        "readyReplicas": model.ready,
        "decision": {"desired": model.desired, "reason": model.reason, "at": model.decided_at},
        "sentences": list(reasons(model, now)),
        "conditions": [asdict(condition) for condition in model.conditions],
    }


def reasons(model: Model, now: datetime) -> Iterator[str]:
    """Yield the sentences that lead from the demand to the count."""
    held = "" if words.tiers(model) == "none" else f", {words.tiers(model)}"
    yield f"{model.name}: {words.replicas(model)} replicas ready{held}."
    if model.pinned is not None:
        yield (
            f"spec.replicas pins the count at {model.pinned}; "
            f"`glowplug release {model.name}` lets Glowplug decide again."
        )
    if model.desired is None:
        yield "No decision has been taken yet."
        return
    when = words.ago(model.decided_at, now)
    yield f"Decided{f' {when}' if when else ''}: {plural(model.desired, 'replica')}."
    if model.reason:
        yield f"Why: {model.reason}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
