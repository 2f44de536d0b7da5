"""One model's replicas as they stand: counted, and with sentences for what keeps them from serving.

Pure: Pod records and launcher states in, a census out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from glowplug.api import Replica, meta, replicas_of
from glowplug.kube import ContainerRecord, PodRecord
from glowplug.observe.state import ReplicaState, StageSpan, spans

Key = tuple[str, int, int]
"""A replica: (Pod uid, process, port)."""

Standing = Literal["ready", "starting", "asleep", "draining", "ended"]

_STUCK = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RegistryUnavailable",
        "RunContainerError",
    }
)
_LONGEST_DETAIL = 300


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
    unschedulable: tuple[str, ...]
    failures: tuple[str, ...]


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
    wanted = [one for one in seen if one.standing not in ("draining", "ended")]
    return Census(
        seen=tuple(seen),
        ready=counts["ready"],
        starting=counts["starting"],
        asleep=counts["asleep"],
        draining=counts["draining"],
        unschedulable=tuple(
            f"Pod {one.pod.name}: {one.pod.unschedulable}"
            for one in wanted
            if one.pod.unschedulable and not one.pod.scheduled
        ),
        failures=tuple(
            sentence for one in seen if one.standing != "draining" for sentence in _failures(one)
        ),
    )


def _standing(replica: Replica, pod: PodRecord, state: ReplicaState | None) -> Standing:
    if pod.phase in ("Failed", "Succeeded"):
        return "ended"
    if replica.draining:
        return "draining"
    if state is None or not state.reachable:
        # The launcher cannot be asked (yet, or from here): kubelet's probe is the next best word.
        return "ready" if pod.ready else "starting"
    if state.phase in ("ready", "asleep", "draining"):
        return state.phase  # type: ignore[return-value]
    return "starting"


def _failures(one: Seen) -> Iterator[str]:
    if one.state is not None and one.state.error:
        yield f"Pod {one.pod.name}: {one.state.error}"
    for container in one.pod.init_containers + one.pod.containers:
        sentence = _failure(container)
        if sentence:
            yield f"Pod {one.pod.name}, container {container.name}: {sentence}"


def _failure(container: ContainerRecord) -> str | None:
    if container.waiting_reason in _STUCK:
        what = container.waiting_reason
        detail = _last_words(container) or container.waiting_message
    elif container.exit_code and not container.running:
        what = container.terminated_reason or "Error"
        detail = _last_words(container)
    else:
        return None
    code = f" (exit code {container.exit_code})" if container.exit_code else ""
    return f"{what}{code}" + (f": {detail.strip()[:_LONGEST_DETAIL]}" if detail else "")


def _last_words(container: ContainerRecord) -> str | None:
    """What the container left in its termination message; ours are JSON with a sentence inside."""
    event = _event(container)
    if event is not None and event.get("message"):
        return str(event["message"])
    return container.message


def _event(container: ContainerRecord) -> dict[str, Any] | None:
    try:
        event = json.loads(container.message or "")
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
