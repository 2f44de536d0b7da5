"""Which Pods to create, drain, take back and delete, given a wanted count; pure.

A replica is supply while its Pod is active; a Pod that drains, ends or is being deleted is not.
All that a rolling update and a scale-down must remember is in the Pods themselves, so any operator
can go on from what another left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from glowplug.api import meta, replicas_of
from glowplug.kube import PodRecord

SURGE_PATIENCE_S = 60.0
"""A surge Pod unschedulable for this long makes its rollout go on with maxUnavailable 1."""
QUIET_GRACE_S = 3.0
"""How long a drained Pod waits for silent gateways, so that each has seen the mark."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The part of a ModelDeployment's spec that a plan follows; `drain_timeout` in seconds."""

    max_surge: int = 1
    max_unavailable: int = 0
    drain_timeout: float = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now; slots are numbers of the wanted revision, the rest are Pods."""

    create: tuple[int, ...] = ()
    reactivate: tuple[PodRecord, ...] = ()
    drain: tuple[PodRecord, ...] = ()
    delete: tuple[PodRecord, ...] = ()
    surge_blocked: PodRecord | None = None
    """The surge Pod without a node that makes the rollout take an old replica away first."""

    def __bool__(self) -> bool:
        return bool(self.create or self.reactivate or self.drain or self.delete)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The Pods of one model by what they are to the count."""

    current: tuple[PodRecord, ...] = ()
    outdated: tuple[PodRecord, ...] = ()
    draining: tuple[PodRecord, ...] = ()
    deleting: tuple[PodRecord, ...] = ()
    ended: tuple[PodRecord, ...] = ()

    @property
    def active(self) -> tuple[PodRecord, ...]:
        """Supply: replicas that serve or will."""
        return self.current + self.outdated

    @property
    def ready(self) -> tuple[PodRecord, ...]:
        """Supply that serves now."""
        return tuple(pod for pod in self.active if pod.ready)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests in flight by Pod uid, as the gateways say.

    A Pod that is listed may still be sent to; one that is missing has none and gets no more.
    `known` is false while a gateway is silent.
    """

    by_pod: Mapping[str, int] = field(default_factory=dict)
    known: bool = False


def classify(pods: Iterable[PodRecord], revision: str) -> Fleet:
    """Sort a model's Pods; `revision` is the wanted one."""
    current, outdated, draining, deleting, ended = [], [], [], [], []
    for pod in pods:
        if pod.deleting:
            deleting.append(pod)
        elif pod.phase in ("Failed", "Succeeded"):
            ended.append(pod)
        elif pod.labels.get(meta.LABEL_STATE) == meta.STATE_DRAINING:
            draining.append(pod)
        elif pod.labels.get(meta.LABEL_REVISION) == revision:
            current.append(pod)
        else:
            outdated.append(pod)
    return Fleet(tuple(current), tuple(outdated), tuple(draining), tuple(deleting), tuple(ended))


def plan(
    fleet: Fleet,
    wanted: int,
    policy: Policy,
    *,
    revision: str,
    taken: frozenset[int],
    load: Load,
    now: float,
    scarce: bool = False,
    may_create: bool = True,
    replace_ended: bool = True,
    misplaced: Collection[str] = (),
) -> Plan:
    """The next moves towards `wanted` active replicas of the current revision.

    `taken`: slots of this revision whose names are in use, also by Pods that are not supply.
    `scarce`: this rollout has met a surge Pod without a node before.
    `may_create` is false while the template is refused: then old replicas go on serving.
    `replace_ended` is false while Pods that fail at once are given time.
    `misplaced`: uids of Pods without a node that are to be made anew in another place.
    """
    if not may_create:
        surplus = _victims(fleet.active, len(fleet.active) - wanted, load)
        return Plan(drain=surplus, delete=_leavers(fleet, policy, load, now))
    leaving = tuple(pod for pod in fleet.current if pod.uid in misplaced)
    fleet = replace(fleet, current=tuple(pod for pod in fleet.current if pod not in leaving))
    patience = 0 if replace_ended else len(fleet.ended)
    blocked = _blocked_surge(fleet, wanted, now)
    lacking = max(0, _lacking(fleet, wanted, policy) - patience)
    back = _returnable(fleet, revision)[:lacking]
    kept = frozenset(pod.uid for pod in back + (() if replace_ended else fleet.ended))
    return Plan(
        create=_free_slots(taken, lacking - len(back)),
        reactivate=back,
        drain=_retire(fleet, wanted, policy, load, scarce or blocked is not None),
        delete=leaving + _leavers(fleet, policy, load, now, but=kept),
        surge_blocked=blocked,
    )


def _lacking(fleet: Fleet, wanted: int, policy: Policy) -> int:
    room = wanted + (policy.max_surge if fleet.outdated else 0) - len(fleet.active)
    return max(0, min(wanted - len(fleet.current), room))


def _retire(
    fleet: Fleet, wanted: int, policy: Policy, load: Load, scarce: bool
) -> tuple[PodRecord, ...]:
    """Replicas to drain: too many of the current revision, and outdated ones that can be spared."""
    surplus = _victims(fleet.current, len(fleet.current) - wanted, load)
    unavailable = max(policy.max_unavailable, 1 if scarce else 0)
    kept = sum(pod.ready for pod in fleet.current if pod not in surplus)
    serving = [pod for pod in fleet.outdated if pod.ready]
    spare = kept + len(serving) - max(0, wanted - unavailable)
    # Outdated replicas that do not serve are no loss, and hold the place of ones that would.
    idle = tuple(pod for pod in fleet.outdated if not pod.ready)
    return surplus + idle + _victims(serving, spare, load)


def _victims(pods: Sequence[PodRecord], count: int, load: Load) -> tuple[PodRecord, ...]:
    """The `count` replicas missed least: without a node, not ready, least loaded, newest."""

    def loss(pod: PodRecord) -> tuple[int, int, float, str]:
        standing = 2 if pod.ready else 1 if pod.scheduled else 0
        return (standing, load.by_pod.get(pod.uid, 0), -pod.created, pod.name)

    return tuple(sorted(pods, key=loss)[: max(0, count)])


def _leavers(
    fleet: Fleet, policy: Policy, load: Load, now: float, but: frozenset[str] = frozenset()
) -> tuple[PodRecord, ...]:
    drained = (pod for pod in fleet.draining if _empty(pod, policy, load, now))
    return tuple(pod for pod in (*drained, *fleet.ended) if pod.uid not in but)


def _empty(pod: PodRecord, policy: Policy, load: Load, now: float) -> bool:
    """Whether a draining Pod may be deleted.

    A deleted Pod still waits for its own requests in preStop, so while the gateways are silent it
    waits only until they have surely seen the mark; one without a launcher cannot do that.
    """
    since = draining_since(pod)
    elapsed = now - since if since is not None else policy.drain_timeout
    if elapsed >= policy.drain_timeout or not pod.ready:
        return True
    if load.known:
        return pod.uid not in load.by_pod
    return waits_by_itself(pod) and elapsed >= QUIET_GRACE_S


def draining_since(pod: PodRecord) -> float | None:
    """When the Pod was marked, in seconds since the epoch; None without a readable mark."""
    text = pod.annotations.get(meta.ANNOTATION_DRAINING_SINCE)
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def waits_by_itself(pod: PodRecord) -> bool:
    """Whether the Pod has a launcher, whose preStop waits for the requests in flight."""
    listed = replicas_of(pod)
    return bool(listed) and all(replica.launcher_port is not None for replica in listed)


def _returnable(fleet: Fleet, revision: str) -> tuple[PodRecord, ...]:
    """Draining replicas that still serve: taking one back beats a cold start."""
    ready = (pod for pod in fleet.draining if pod.ready)
    mine = (pod for pod in ready if pod.labels.get(meta.LABEL_REVISION) == revision)
    return tuple(sorted(mine, key=lambda pod: (pod.created, pod.name)))


def _free_slots(taken: frozenset[int], count: int) -> tuple[int, ...]:
    slots: list[int] = []
    slot = 0
    while len(slots) < count:
        if slot not in taken:
            slots.append(slot)
        slot += 1
    return tuple(slots)


def _blocked_surge(fleet: Fleet, wanted: int, now: float) -> PodRecord | None:
    if not fleet.outdated or len(fleet.active) <= wanted:
        return None
    waiting = [
        pod
        for pod in fleet.current
        if pod.unschedulable is not None and now - pod.created >= SURGE_PATIENCE_S
    ]
    return min(waiting, key=lambda pod: pod.created, default=None)
