"""Writing status: at once on a transition, otherwise at most once a minute, never without need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glowplug.act.refs import Ref
from glowplug.act.writer import Writer
from glowplug.kube import Conflict, Json, NotFound, Resource

FIELD_MANAGER = "glowplug-status"
CALM_S = 60.0
"""How often a change that is no transition is written at most."""

_TRANSITIONS = (
    "observedGeneration",
    "revision",
    "replicas",
    "readyReplicas",
    "updatedReplicas",
    "tiers",
    "snapshot",
    "digest",
    "memory",
)


@dataclass(frozen=True, slots=True)
class _Sent:
    at: float
    status: Json


class StatusWriter:
    """Writes the status of any kind by server-side apply; `clock` in any monotonic seconds."""

    def __init__(self, writer: Writer, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._clock = clock
        self._sent: dict[str, _Sent] = {}

    async def write(
        self,
        res: Resource,
        ref: Ref,
        before: Mapping[str, Any],
        after: Json,
        *,
        broken: bool = False,
    ) -> Json | None:
        """Bring the object's status from `before` to `after` if it is time; the object, if written.

        `before` is the status as last read; an object that is gone is no error. `broken`: the
        stored object breaks its schema, and server-side apply cannot read such an object.
        """
        after = rounded(after)
        now = self._clock()
        if not self._is_due(ref.uid, before, after, now):
            return None
        metadata = {"name": ref.name, "uid": ref.uid}
        if ref.namespace:
            metadata["namespace"] = ref.namespace
        body = {"metadata": metadata, "status": after}
        self._sent[ref.uid] = _Sent(now, after)
        try:
            if broken:
                return await self._writer.patch(
                    res, ref.name, body, ref.namespace, subresource="status"
                )
            return await self._writer.apply(
                res, body, field_manager=FIELD_MANAGER, subresource="status"
            )
        except (NotFound, Conflict):
            return None  # gone, or another object has its name by now

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._sent.pop(uid, None)

    def _is_due(self, uid: str, before: Mapping[str, Any], after: Json, now: float) -> bool:
        sent = self._sent.get(uid)
        if sent is not None and sent.status == after and within(after, before):
            return False
        if dict(before) == after:
            return False
        return is_transition(before, after) or sent is None or now - sent.at >= CALM_S


def is_transition(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a count, a tier, a decision, a cold start or a condition changed."""
    return _essence(before) != _essence(after)


def _essence(status: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        [status.get(key) for key in _TRANSITIONS],
        (status.get("decision") or {}).get("desired"),
        ((status.get("coldStart") or {}).get("last") or {}).get("at"),
        [_turn(condition) for condition in status.get("conditions") or ()],
    )


def _turn(condition: Mapping[str, Any]) -> tuple[object, ...]:
    """What makes a condition another one: not its words, but for how many replicas lack a place."""
    missing = None
    if condition.get("type") == "CapacityAvailable":
        # Before the colon are our own words with the count, after it the scheduler's.
        missing = str(condition.get("message")).split(":")[0]
    parts = (condition.get(key) for key in ("type", "status", "reason", "observedGeneration"))
    return (*parts, missing)


def within(part: Any, whole: Any) -> bool:
    """Whether all that `part` says is in `whole` too; others may have added to it."""
    if isinstance(part, Mapping):
        return isinstance(whole, Mapping) and all(
            key in whole and within(value, whole[key]) for key, value in part.items()
        )
    return bool(part == whole)


def rounded(value: Any) -> Any:
    """Every float in a status with two digits; live figures are for metrics."""
    if isinstance(value, float):
        return round(value, 2)
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
