"""One model's replicas as they stand, counted.

Pure: Pod records and launcher states in, a census out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from glowplug.api import Replica, meta, replicas_of
from glowplug.kube import ContainerRecord, PodRecord
from glowplug.observe.state import ReplicaState, StageSpan, spans

Key = tuple[str, int, int]
"""A replica: (Pod uid, process, port)."""

Standing = Literal["ready", "starting", "asleep", "draining", "ended"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One replica with its Pod, its launcher's state if known, and where it stands."""

    replica: Replica
    pod: PodRecord
    state: ReplicaState | None
    standing: Standing


@dataclass(frozen=True, slots=True)
class Census:
    """All replicas of one model. `starting` counts those on their way, stuck ones included."""

    seen: tuple[Seen, ...]
    ready: int
    starting: int
    asleep: int
    draining: int


def restore_spans(pod: PodRecord) -> tuple[StageSpan, ...]:
    """Stages that a restore init container left in its termination message."""
    for container in pod.init_containers:
        if container.name == meta.CONTAINER_RESTORE:
            event = _event(container)
            return spans(event.get("stages")) if event is not None else ()
    return ()


def model_keys(pod: PodRecord) -> list[str]:
    """The index of a Pod cache by "namespace/model": `WatchCache(..., index=model_keys)`."""
    return sorted({f"{r.namespace}/{r.model}" for r in replicas_of(pod)})


def census(
    model: str, pods: Iterable[PodRecord], state_of: Callable[[Key], ReplicaState | None]
) -> Census:
    """Count the replicas of "namespace/model" among `pods` (other models' are passed over)."""
    seen = []
    for pod in pods:
        for replica in replicas_of(pod):
            if f"{replica.namespace}/{replica.model}" == model:
                state = state_of(replica.key)
                seen.append(Seen(replica, pod, state, _standing(replica, pod, state)))
    counts = Counter(one.standing for one in seen)
    return Census(
        seen=tuple(seen),
        ready=counts["ready"],
        starting=counts["starting"],
        asleep=counts["asleep"],
        draining=counts["draining"],
    )


def _standing(replica: Replica, pod: PodRecord, state: ReplicaState | None) -> Standing:
    if pod.phase in ("Failed", "Succeeded"):
        return "ended"
    if replica.draining:
        return "draining"
    if state is None or not (state.reachable or state.phase == "failed"):
        # The launcher cannot be asked (yet, or from here): kubelet's probe is the next best word,
        # but for a second or more it holds a replica ready whose last word was that it failed.
        return "ready" if pod.ready else "starting"
    if state.phase in ("ready", "asleep", "draining"):
        return state.phase  # type: ignore[return-value]
    return "starting"


def _event(container: ContainerRecord) -> dict[str, Any] | None:
    try:
        event = json.loads(container.message or "")
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
