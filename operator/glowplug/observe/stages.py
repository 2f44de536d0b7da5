"""Where the time of a cold start went: a partition of [request received, first token].

Each instant belongs to the one stage then blocking; what no stage claims is unattributed, and work
that ran beside the critical path is listed as hidden. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from glowplug.api import STAGES, UNATTRIBUTED
from glowplug.observe.demand import First
from glowplug.observe.state import ReplicaState, StageSpan
from glowplug.observe.timeline import PodInstants

_LAUNCHER_STAGES = frozenset({"restore", "start", "load", "compile"})


@dataclass(frozen=True, slots=True)
class ColdStart:
    """One cold start. Seconds; `stages` has every name of STAGES and sums to `total`.

    `path` is the start path (cold, cached, standby, asleep), `at` when the first token came.
    """

    model: str
    pod_uid: str
    total: float
    stages: Mapping[str, float]
    hidden: Mapping[str, float]
    path: str
    at: float


@dataclass(frozen=True, slots=True)
class Start:
    """What is known of how a replica started: from the watch and from its launcher."""

    pod: PodInstants = field(default_factory=PodInstants)
    launched_at: float | None = None
    ready_at: float | None = None
    spans: tuple[StageSpan, ...] = ()

    @property
    def seconds(self) -> float | None:
        """Pod created to serving: the lead time of this start, None unless witnessed whole."""
        if self.pod.created is None or self.ready_at is None:
            return None
        return max(0.0, self.ready_at - self.pod.created)


def start_of(
    pod: PodInstants, state: ReplicaState | None, restored: tuple[StageSpan, ...] = ()
) -> Start:
    """Join what the watch, the launcher and, without one, the restore container know."""
    if state is None:
        return Start(pod)
    if state.launched_at is not None or not restored:
        return Start(pod, state.launched_at, state.ready_at, state.stages)
    ends = [span.end for span in restored if span.end is not None]
    engine = (StageSpan("start", max(ends), state.ready_at),) if ends else ()
    return Start(pod, restored[0].start, state.ready_at, restored + engine)


def cold_start(first: First, start: Start, path: str = "cold") -> ColdStart:
    """The partition for one request that waited for one replica."""
    end = max(first.received, first.first_token)
    # received, sent and first token are stamps of one clock, the gateway's: nothing that others
    # stamped may reach beyond `sent`.
    sent = min(max(first.sent, first.received), end)
    stages = partition(first.received, sent, _critical(first, start))
    stages["first_token"] = end - sent
    hidden: dict[str, float] = {}
    for span in start.spans:
        if span.hidden and span.end is not None:
            hidden[span.name] = hidden.get(span.name, 0.0) + max(0.0, span.end - span.start)
    return ColdStart(
        model=first.model,
        pod_uid=first.pod_uid,
        total=end - first.received,
        stages=stages,
        hidden=hidden,
        path=path,
        at=first.first_token,
    )


def partition(begin: float, end: float, spans: Iterable[StageSpan]) -> dict[str, float]:
    """Seconds per stage over [begin, end]; the earlier span in the list wins where two overlap.

    Stamps come from several clocks, so spans may overlap or leave the window: each is cut to what
    the ones before it left, and one that runs backwards is void. The values are >= 0 and sum to
    max(0, end - begin).
    """
    seconds = dict.fromkeys(STAGES, 0.0)
    end = max(begin, end)
    reached = begin
    for span in spans:
        if span.end is None or span.end < span.start:
            continue
        start = min(max(span.start, reached), end)
        stop = min(max(span.end, start), end)
        seconds[UNATTRIBUTED] += start - reached
        seconds[span.name] += stop - start
        reached = stop
    seconds[UNATTRIBUTED] += end - reached
    return seconds


def _critical(first: First, start: Start) -> list[StageSpan]:
    """The critical path in its order; a stage with an unknown edge is left out."""
    pod = start.pod
    # Kubelet reports the sandbox up to a second late; a launcher that runs is better evidence.
    sandbox = pod.sandbox
    if sandbox is not None and start.launched_at is not None:
        sandbox = min(sandbox, start.launched_at)
    waited_for_node = pod.unschedulable is not None
    edges: list[tuple[str, float | None, float | None]] = [
        ("decide", first.received, pod.created),
        ("schedule", pod.created, pod.unschedulable if waited_for_node else pod.scheduled),
        ("node", pod.unschedulable, pod.scheduled),
        ("sandbox", pod.scheduled, sandbox),
        ("image", sandbox, start.launched_at),
    ]
    edges += [
        (span.name, span.start, start.ready_at if span.end is None else span.end)
        for span in start.spans
        if span.name in _LAUNCHER_STAGES and not span.hidden
    ]
    edges.append(("route", start.ready_at, first.sent))
    return [
        StageSpan(name, begin, end)
        for name, begin, end in edges
        if begin is not None and end is not None
    ]
