"""The ladder of a GPUPool: on which rung a replica goes, and when it is tried on another one.

`place` and `climb` are pure; `Ladders` remembers which rungs failed whom, and is expendable: a new
operator learns it anew within `PATIENCE_S`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from glowplug.act.containers import Placement
from glowplug.act.manifest import ANNOTATION_GPUS, ANNOTATION_POOL, ANNOTATION_RUNG
from glowplug.api import GPUPool, meta
from glowplug.kube import PodRecord

PATIENCE_S = 30.0
"""A static pool's nodes are there already and the scheduler looks again at every change: what has
no node after this long waits for GPUs that somebody else holds."""
AGAIN_S = 300.0
"""A rung that failed a model is left alone for this long, or Pods would go round in circles."""


def place(
    pool: GPUPool, gpus: int, used: Mapping[str, int], failed: Collection[str] = ()
) -> Placement | None:
    """Where a replica goes: the first rung with room that has not failed it, else the first with
    room; None when every rung is full.

    `gpus` is what one replica needs, `used` the GPUs of each rung that are taken.
    """
    spec = pool.spec
    room = (r for r in spec.ladder if r.max is None or used.get(r.name, 0) + gpus <= r.max)
    rung = min(room, key=lambda r: r.name in failed, default=None)
    if rung is None and spec.ladder:
        return None
    return Placement(
        pool=pool.metadata.name,
        rung=rung.name if rung else None,
        node_selector={**spec.node_selector, **(rung.node_selector if rung else {})},
        tolerations=tuple(
            t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in spec.tolerations
        ),
    )


@dataclass(frozen=True, slots=True)
class Climb:
    """Who leaves the rung it waits on, by Pod uid, and the GPUs of each rung once they have."""

    to: Mapping[str, Placement]
    used: Counter[str]


def climb(
    pool: GPUPool,
    pods: Iterable[PodRecord],
    failed: Callable[[PodRecord], Collection[str]],
    now: float,
) -> Climb:
    """Give the starved Pods of a pool their rungs, those that wait longest first.

    `failed` tells the rungs that failed the model of a Pod lately, its present one included once
    it is starved. A Pod with no better rung to go to stays where it is, or goes back to the first.
    """
    held = [pod for pod in pods if holds_gpus(pod, pool.metadata.name)]
    used = used_by_rung(held)
    to: dict[str, Placement] = {}
    for pod in sorted(held, key=lambda pod: (pod.created, pod.namespace, pod.name)):
        if not is_starved(pod, now):
            continue
        gpus, rung = gpus_of(pod), rung_of(pod)
        used[rung] -= gpus
        target = place(pool, gpus, used, failed(pod))
        if target is None or (target.rung or "") == rung:
            used[rung] += gpus
            continue
        used[target.rung or ""] += gpus
        to[pod.uid] = target
    return Climb(to, used)


def is_starved(pod: PodRecord, now: float) -> bool:
    """Whether the scheduler has found no node for a wanted replica for too long."""
    wanted = not pod.deleting and pod.labels.get(meta.LABEL_STATE) != meta.STATE_DRAINING
    return wanted and pod.unschedulable is not None and now - pod.created >= PATIENCE_S


def used_by_rung(pods: Iterable[PodRecord]) -> Counter[str]:
    """GPUs that these Pods hold or wait for, by rung."""
    used: Counter[str] = Counter()
    for pod in pods:
        used[rung_of(pod)] += gpus_of(pod)
    return used


def holds_gpus(pod: PodRecord, pool: str) -> bool:
    """Whether the Pod takes part of a pool's GPUs."""
    ended = pod.phase in ("Failed", "Succeeded")
    return not ended and pod.annotations.get(ANNOTATION_POOL) == pool


def gpus_of(pod: PodRecord) -> int:
    """GPUs that a replica's Pod holds or waits for."""
    text = pod.annotations.get(ANNOTATION_GPUS, "")
    return int(text) if text.isdigit() else 0


def rung_of(pod: PodRecord) -> str:
    """The rung that the Pod is on, "" without one."""
    return pod.annotations.get(ANNOTATION_RUNG, "")


@dataclass(frozen=True, slots=True)
class Failure:
    """A rung without a node, in the scheduler's words; forgiven at `until` (s since the epoch)."""

    sentence: str
    until: float


class Ladders:
    """The rungs that failed each model lately, by the uid of the model and the name of the pool."""

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], dict[str, Failure]] = {}

    def climb(self, pool: GPUPool, pods: Iterable[PodRecord], now: float) -> Climb:
        """`climb` over all Pods of the pool, after noting what is starved now."""
        name = pool.metadata.name
        held = [pod for pod in pods if holds_gpus(pod, name)]
        for pod in held:
            if is_starved(pod, now):
                failure = Failure(pod.unschedulable or "", now + AGAIN_S)
                for uid in pod.owner_uids:
                    self._failures.setdefault((uid, name), {})[rung_of(pod)] = failure
        return climb(
            pool,
            held,
            lambda pod: {rung for uid in pod.owner_uids for rung in self.failed(uid, name, now)},
            now,
        )

    def failed(self, uid: str, pool: str, now: float) -> dict[str, str]:
        """The rungs that failed the model lately, each with the scheduler's words."""
        known = self._failures.get((uid, pool), {})
        return {rung: one.sentence for rung, one in known.items() if now < one.until}

    def forget(self, uid: str) -> None:
        """The model is gone."""
        for key in [key for key in self._failures if key[0] == uid]:
            del self._failures[key]
