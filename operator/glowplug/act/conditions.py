"""The verdicts that become a ModelDeployment's conditions, each with a sentence; pure.

Sentences hold no number that changes while nothing happens: at rest, nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from glowplug.act.plan import Fleet
from glowplug.act.troubles import Trouble
from glowplug.api.conditions import set_condition

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition without its times."""

    type: str
    status: Truth
    reason: str
    message: str


def judged(
    before: Sequence[dict[str, Any]], verdicts: Iterable[Verdict], now: float, generation: int
) -> list[dict[str, Any]]:
    """The conditions of exactly these verdicts; times come from `before` where nothing changed."""
    verdicts = tuple(verdicts)
    types = [verdict.type for verdict in verdicts]
    conditions = [c for c in before if c.get("type") in types]
    for verdict in verdicts:
        conditions = set_condition(
            conditions,
            verdict.type,
            verdict.status,
            verdict.reason,
            verdict.message,
            now,
            generation,
        )
    return sorted(conditions, key=lambda c: types.index(c["type"]))


def ready(
    fleet: Fleet, wanted: int, troubles: Sequence[Trouble], template: Verdict, capacity: Verdict
) -> Verdict:
    """Whether the next request is answered: by a replica, or by one that it starts."""
    serving = len(fleet.ready)
    total = max(wanted, len(fleet.active))
    first = troubles[0].sentence if troubles else ""
    if serving:
        told = f"{serving} of {total} replicas serve."
        return Verdict("Ready", "True", "Serving", f"{told} {first}".rstrip())
    if template.status == "False":
        return Verdict("Ready", "False", "TemplateInvalid", template.message)
    if not wanted and not fleet.active:
        return Verdict(
            "Ready", "True", "ScaledToZero", "No demand; the next request starts a replica."
        )
    if troubles:
        return Verdict("Ready", "False", troubles[0].reason, first)
    if capacity.status == "False":
        return Verdict("Ready", "False", capacity.reason, capacity.message)
    return Verdict("Ready", "False", "Starting", "The first replica is starting.")


def invalid(problems: Sequence[str]) -> Verdict:
    """Ready of an object that breaks the rules of its kind."""
    return Verdict(
        "Ready",
        "False",
        "InvalidSpec",
        f"This object is invalid and nothing is done for it: {'; '.join(problems)}.",
    )


def capacity(
    fleet: Fleet, wanted: int, refused: Verdict | None, failed_rungs: Mapping[str, str]
) -> Verdict:
    """Whether every wanted replica has a place; `refused` is a verdict of pool, budget or quota.

    `failed_rungs`: what the scheduler said of rungs that replicas without a node were on before;
    one that has just been put on the next rung is as homeless as it was.
    """
    homeless = [
        pod
        for pod in fleet.active
        if pod.unschedulable is not None or (failed_rungs and not pod.scheduled)
    ]
    if homeless:
        told = f": {_need(homeless[0].unschedulable or '')}"
        if failed_rungs:
            rungs = (f"rung {rung}: {_need(words)}" for rung, words in failed_rungs.items())
            told = "; " + " ".join(rungs)
        return Verdict(
            "CapacityAvailable",
            "False",
            "Unschedulable",
            f"{len(homeless)} of {max(wanted, len(fleet.active))} replicas have no node{told}",
        )
    if refused is not None:
        return refused
    return Verdict("CapacityAvailable", "True", "Sufficient", "Every wanted replica has a place.")


def _need(words: str) -> str:
    """The scheduler's sentence without what it says of preemption."""
    return words.split(" preemption:", maxsplit=1)[0].strip()


def template(error: str | None) -> Verdict:
    """Whether the API server takes the Pod; `error` is its own sentence."""
    if error is None:
        return Verdict("TemplateValid", "True", "Accepted", "The API server accepts the Pod.")
    return Verdict("TemplateValid", "False", "Refused", f"The API server refuses the Pod: {error}")


def limited(sentence: str | None) -> Verdict:
    """Whether a bound keeps the count from what demand asks for."""
    if sentence is None:
        return Verdict("ScalingLimited", "False", "WithinLimits", "No bound is in the way.")
    return Verdict("ScalingLimited", "True", "Limited", sentence)


def metrics(available: bool | None, sentence: str) -> Verdict:
    """Whether the engines' queue is seen; None where nothing was configured or is needed."""
    if available is None:
        return Verdict("MetricsAvailable", "Unknown", "NotObserved", sentence)
    if available:
        return Verdict("MetricsAvailable", "True", "Fresh", sentence)
    return Verdict("MetricsAvailable", "False", "Unavailable", sentence)
