"""When a Pod's milestones were seen on the watch: finer than kubelet's stamps of whole seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from glowplug.kube import PodRecord

_FRESH = 2.5  # creationTimestamp is cut to whole seconds


@dataclass(frozen=True, slots=True)
class PodInstants:
    """Arrival times (seconds since the epoch) of one Pod's milestones; None = not witnessed."""

    created: float | None = None
    unschedulable: float | None = None
    scheduled: float | None = None
    sandbox: float | None = None


class PodTimeline:
    """Subscribes to the Pod cache and notes the first time each milestone was seen.

    A milestone already passed when the Pod was first seen long after its creation was not
    witnessed, and stays None: an operator that has just started must not invent fast starts.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._pods: dict[str, PodInstants] = {}

    def __call__(self, old: PodRecord | None, new: PodRecord | None) -> None:
        """The cache's subscriber."""
        if new is None:
            if old is not None:
                self._pods.pop(old.uid, None)
            return
        now = self._clock()
        if old is None or new.uid not in self._pods:
            fresh = now - new.created < _FRESH
            known = PodInstants(created=now) if fresh else PodInstants()
            old = None if fresh else new
        else:
            known = self._pods[new.uid]
        self._pods[new.uid] = _seen(known, old, new, now)

    def get(self, uid: str) -> PodInstants:
        """What was witnessed of the Pod."""
        return self._pods.get(uid, PodInstants())


def _seen(known: PodInstants, old: PodRecord | None, new: PodRecord, now: float) -> PodInstants:
    if new.unschedulable and not (old and old.unschedulable) and known.unschedulable is None:
        known = replace(known, unschedulable=now)
    if new.scheduled and not (old and old.scheduled):
        known = replace(known, scheduled=now)
    if new.sandbox_ready and not (old and old.sandbox_ready) and known.sandbox is None:
        known = replace(known, sandbox=now)
    return known
