"""The status of a ModelDeployment from what was seen, decided and done in one pass; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glowplug.act import conditions
from glowplug.act.conditions import Verdict, judged
from glowplug.act.containers import Recipe
from glowplug.act.plan import Fleet
from glowplug.act.service import replica_selector
from glowplug.act.snapshot import secret_advice
from glowplug.act.troubles import Trouble, trouble_of
from glowplug.api import ModelSnapshot, condition, timestamp
from glowplug.observe import ColdStart, ColdStartHistory

_CALM = frozenset({"Starting", "NoStore", "Disabled", "NotNeeded", "Taking"})
"""Reasons of a condition that is False for now and nobody's trouble."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided: `wanted` replicas, why, by which rule, and which bound was in the way."""

    wanted: int
    asleep: int
    reason: str
    rule: str
    limited: str | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over one model, done."""

    before: Mapping[str, Any]
    generation: int
    recipe: Recipe
    fleet: Fleet
    decided: Decided
    refused: Verdict | None
    failed_rungs: Mapping[str, str]
    template_error: str | None
    metrics: Verdict | None
    snapshot: Verdict
    dollars_per_hour: float | None
    history: ColdStartHistory
    troubles: Sequence[Trouble]
    now: float


def status_of(done: Pass) -> dict[str, Any]:
    """`status` in the form of the CRD; parts that have nothing to say are left out."""
    fleet, recipe = done.fleet, done.recipe
    m = recipe.deployment.metadata
    selector = ",".join(f"{key}={value}" for key, value in replica_selector(m.name).items())
    status: dict[str, Any] = {
        "observedGeneration": done.generation,
        "revision": recipe.revision,
        "replicas": len(fleet.active),
        "readyReplicas": len(fleet.ready),
        "updatedReplicas": len(fleet.current),
        "selector": selector,
        "tiers": {
            "hot": len(fleet.ready),
            "asleep": 0,
            "starting": len(fleet.active) - len(fleet.ready),
            "draining": len(fleet.draining) + len(fleet.deleting),
        },
        "decision": _decision(done),
        "conditions": _conditions(done),
    }
    if done.dollars_per_hour is not None:
        status["cost"] = {"dollarsPerHour": done.dollars_per_hour}
    if recipe.memory.status is not None:
        status["memory"] = recipe.memory.status
    status["snapshot"] = _snapshot(recipe)
    cold = cold_start_status(done.history) or done.before.get("coldStart")
    if cold:
        status["coldStart"] = cold
    return status


def _decision(done: Pass) -> dict[str, Any]:
    """The last decision that was new: its numbers and time stay while count and rule do."""
    before, decided = done.before.get("decision") or {}, done.decided
    known = (before.get("desired"), before.get("asleep"), before.get("rule"))
    if known == (decided.wanted, decided.asleep, decided.rule):
        return dict(before)
    return {
        "desired": decided.wanted,
        "asleep": decided.asleep,
        "rule": decided.rule,
        "reason": decided.reason,
        "at": timestamp(done.now),
    }


def _conditions(done: Pass) -> list[dict[str, Any]]:
    before = done.before.get("conditions") or []
    fleet, wanted = done.fleet, done.decided.wanted
    # A rung that failed matters to those who were short before, not to a replica just created.
    short = (condition(before, "CapacityAvailable") or {}).get("status") == "False"
    failed_rungs = done.failed_rungs if short else {}
    capacity = conditions.capacity(fleet, wanted, done.refused, failed_rungs)
    template = conditions.template(done.template_error)
    snapshot = _missing_secret(done) or done.snapshot
    verdicts = [
        conditions.ready(fleet, wanted, done.troubles, template, capacity),
        snapshot,
        done.metrics or _carried(before, "MetricsAvailable"),
        capacity,
        conditions.limited(done.decided.limited),
        template,
    ]
    present = [verdict for verdict in verdicts if verdict is not None]
    return judged(before, present, done.now, done.generation)


def find_troubles(fleet: Fleet, by_launchers: Mapping[str, Trouble]) -> list[Trouble]:
    """What the replicas suffer from; the launcher's own words win, but for what only kubelet knows.

    `by_launchers`: what launchers say, by Pod uid.
    """
    found = []
    for pod in (*fleet.active, *fleet.ended):
        told = by_launchers.get(pod.uid)
        trouble = trouble_of(pod)
        of_memory = trouble is not None and trouble.reason == "OutOfMemory"
        if told is not None and not pod.ready and not of_memory:
            trouble = told
        if trouble is not None:
            found.append(trouble)
    return found


def _missing_secret(done: Pass) -> Verdict | None:
    """A Secret of the store that no Pod can start without."""
    weights = done.recipe.weights
    for trouble in done.troubles:
        if trouble.missing_secret is not None and trouble.missing_secret == weights.secret:
            namespace = done.recipe.deployment.metadata.namespace
            advice = secret_advice(trouble.missing_secret, namespace)
            told = f"{trouble.sentence} {advice}"
            return Verdict("SnapshotReady", "False", "SecretMissing", told)
    return None


def _carried(before: Sequence[dict[str, Any]], kind: str) -> Verdict | None:
    known = condition(before, kind)
    if known is None:
        return None
    return Verdict(kind, known["status"], known["reason"], known["message"])


def _snapshot(recipe: Recipe) -> dict[str, Any]:
    weights = recipe.weights
    told: dict[str, Any] = {"verified": weights.kind}
    for key, value in (
        ("name", weights.snapshot),
        ("digest", weights.digest),
        ("bytes", weights.size),
    ):
        if value is not None:
            told[key] = value
    return told


def snapshot_verdict(recipe: Recipe, snapshot: ModelSnapshot | None, *, store: bool) -> Verdict:
    """SnapshotReady: whether replicas load from a snapshot, and if not, why not."""
    use = recipe.deployment.spec.model.snapshot

    def verdict(status: conditions.Truth, reason: str, sentence: str) -> Verdict:
        return Verdict("SnapshotReady", status, reason, sentence)

    if recipe.weights.claim is not None:
        return verdict("False", "NotNeeded", "The weights are read from their volume.")
    if use.policy == "Never":
        return verdict("False", "Disabled", "model.snapshot.policy is Never; the source is loaded.")
    if snapshot is None and use.name is not None:
        told = f"There is no ModelSnapshot {use.name} in this namespace; the source is loaded."
        return verdict("False", "SnapshotNotFound", told)
    if snapshot is None and not store:
        told = "No store is configured (chart value store.url); the source is loaded."
        return verdict("False", "NoStore", told)
    if snapshot is None:
        told = "A snapshot is about to be taken; until then the source is loaded."
        return verdict("Unknown", "NotTaken", told)
    ready = condition(snapshot.status.get("conditions") or [], "Ready")
    if recipe.weights.kind == "snapshot":
        told = f"New replicas load from ModelSnapshot {snapshot.metadata.name}."
        return verdict("True", "Taken", told)
    if ready is None:
        return verdict("False", "Taking", "The snapshot is about to be taken.")
    return verdict("False", ready["reason"], ready["message"])


def cold_start_status(history: ColdStartHistory) -> dict[str, Any] | None:
    """`status.coldStart`, None before the first one of this operator's life."""
    last = history.last
    if last is None:
        return None
    status: dict[str, Any] = {
        "last": told(last),
        "paths": {
            path: {"samples": stats.samples, "p50": dict(stats.p50), "p90": dict(stats.p90)}
            for path, stats in history.all_stats().items()
        },
    }
    stats = history.stats(last.path)
    if stats is not None:
        status |= {
            "p50": stats.p50["total"],
            "p90": stats.p90["total"],
            "samples": stats.samples,
        }
    return status


def told(start: ColdStart) -> dict[str, Any]:
    """One cold start in the form of the CRD; `at` is when its request came."""
    return {
        "total": start.total,
        "stages": dict(start.stages),
        "hidden": dict(start.hidden),
        "path": start.path,
        "at": timestamp(start.at - start.total),
    }


@dataclass(frozen=True, slots=True)
class News:
    """A condition that changed, as an event."""

    warning: bool
    reason: str
    sentence: str


def news(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> tuple[News, ...]:
    """What is worth an event: troubles as they begin, and every turn of Ready."""
    known = {c.get("type"): (c.get("status"), c.get("reason")) for c in before}
    found = []
    for c in after:
        turned = known.get(c["type"]) != (c["status"], c["reason"])
        bad_when = "True" if c["type"] == "ScalingLimited" else "False"
        bad = c["status"] == bad_when and c["reason"] not in _CALM
        if turned and (bad or (c["type"] == "Ready" and known)):
            found.append(News(bad, c["reason"], c["message"]))
    unique = {(one.reason, one.sentence): one for one in found}
    return tuple(unique.values())


def cold_start_news(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[News, ...]:
    """A cold start that was not reported before, with the stages that took longest."""
    last = (after.get("coldStart") or {}).get("last")
    known = (before.get("coldStart") or {}).get("last") or {}
    if not last or last["at"] == known.get("at"):
        return ()
    stages = sorted(last["stages"].items(), key=lambda stage: -stage[1])[:4]
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages if seconds >= 0.05)
    told = f"The first token came {last['total']:.1f} s after the request: {spent or 'at once'}."
    return (News(False, "ColdStart", told),)
