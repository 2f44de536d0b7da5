"""Bringing one model's Pods to the wanted count: plan, write, and tell what stood in the way."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from glowplug.act.conditions import Verdict
from glowplug.act.containers import Placement, Recipe
from glowplug.act.events import Recorder
from glowplug.act.launcher import Launchers
from glowplug.act.manifest import pod_name, ref_of, replica_pod
from glowplug.act.plan import Fleet, Load, Plan, Policy, classify, plan
from glowplug.act.pods import Pods
from glowplug.act.refs import Ref
from glowplug.api import GPUPool
from glowplug.control.ladder import PATIENCE_S, Climb, Ladders, is_starved, place
from glowplug.control.minds import Mind
from glowplug.kube import ApiError, Forbidden, Invalid, Json, PodRecord, WatchCache

_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be done for one model in one pass; `neighbours` gives all models of its namespace.

    `pool` is None where replicas may run anywhere; `now` in seconds since the epoch.
    """

    recipe: Recipe
    pool: GPUPool | None
    owned: tuple[PodRecord, ...]
    wanted: int
    load: Load
    mind: Mind
    neighbours: Callable[[], Sequence[Ref]]
    now: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; `moved` when Pods were written."""

    fleet: Fleet
    moved: bool = False
    refused: Verdict | None = None
    """Why a wanted replica has no place, for reasons other than the scheduler's."""
    failed_rungs: Mapping[str, str] = field(default_factory=dict)
    """Rungs of the ladder that had no node lately, in its order, with the scheduler's words."""


class Replicas:
    """The hands that move replicas."""

    def __init__(
        self, pods: Pods, cache: WatchCache[PodRecord], launchers: Launchers, recorder: Recorder
    ) -> None:
        self._pods = pods
        self._cache = cache
        self._launchers = launchers
        self._recorder = recorder
        self._ladders = Ladders()
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    async def move(self, errand: Errand) -> Outcome:
        """One step towards the wanted count."""
        mind, revision = errand.mind, errand.recipe.revision
        fleet = classify(errand.owned, revision)
        if fleet.ready:
            mind.ended = 0
        climb = self._climb(errand, fleet)
        made = self._plan(errand, fleet, climb)
        if made.surge_blocked is not None and mind.scarce != revision:
            mind.scarce = revision
            await self._tell_blocked(errand, made.surge_blocked)
        mind.lost(sum(pod in fleet.ended for pod in made.delete), errand.now)
        refused = None
        if made.create and (refused := mind.lacking(errand.now)) is not None:
            made = dataclasses.replace(made, create=())
        if made.create:
            refused = await self._create(errand, made, climb)
        elif any(not pod.ready for pod in fleet.active):
            refused = await self._mind_launcher(errand)
        await asyncio.gather(
            *(self._pods.reactivate(pod) for pod in made.reactivate),
            *(self._pods.drain(pod) for pod in made.drain),
            *(self._pods.delete(pod) for pod in made.delete),
        )
        failed = self._failed_rungs(errand)
        if not made:
            return Outcome(fleet, False, refused, failed)
        await self._tell_climbed(errand, made, climb)
        return Outcome(classify(self._reread(errand), revision), True, refused, failed)

    def forget(self, uid: str) -> None:
        """The model with this uid is gone."""
        self._ladders.forget(uid)

    async def try_template(self, recipe: Recipe, mind: Mind, now: float) -> None:
        """Ask the API server, once per revision, whether it would take the Pod."""
        if mind.accepted == recipe.revision or mind.refused(recipe.revision, now):
            return
        try:
            await self._pods.try_create(replica_pod(recipe, 0))
        except (Invalid, Forbidden) as error:
            if _shortage(error) is None:
                mind.refuse(recipe.revision, error.message, now)
                return
        mind.accept(recipe.revision)

    def _climb(self, errand: Errand, fleet: Fleet) -> Climb:
        """Who goes to another rung; looked up only where someone waits or is to be created."""
        lacking = errand.wanted - len(fleet.current)
        # Of more than are wanted, those without a node are the first to go.
        waits = lacking == 0 and any(is_starved(pod, errand.now) for pod in fleet.current)
        if errand.pool is None or not (lacking > 0 or waits):
            return Climb({}, Counter())
        return self._ladders.climb(errand.pool, self._cache.all(), errand.now)

    def _failed_rungs(self, errand: Errand) -> dict[str, str]:
        ladder = errand.pool.spec.ladder if errand.pool is not None else ()
        if errand.pool is None or len(ladder) < 2:
            return {}
        uid = errand.recipe.deployment.metadata.uid
        failed = self._ladders.failed(uid, errand.pool.metadata.name, errand.now)
        return {rung.name: failed[rung.name] for rung in ladder if rung.name in failed}

    def _plan(self, errand: Errand, fleet: Fleet, climb: Climb) -> Plan:
        recipe, mind, now = errand.recipe, errand.mind, errand.now
        update = recipe.deployment.spec.update
        return plan(
            fleet,
            errand.wanted,
            Policy(update.max_surge, update.max_unavailable, update.drain_timeout),
            revision=recipe.revision,
            taken=self._taken(recipe, errand.wanted + update.max_surge),
            load=errand.load,
            now=now,
            scarce=mind.scarce == recipe.revision,
            may_create=not mind.refused(recipe.revision, now),
            replace_ended=now >= mind.ended_until,
            misplaced=climb.to,
        )

    def _taken(self, recipe: Recipe, needed: int) -> frozenset[int]:
        """Slots whose names are in use, whoever uses them."""
        m = recipe.deployment.metadata
        known = len(self._cache.by_index(recipe.deployment.key))
        names = ((slot, pod_name(m.name, recipe.revision, slot)) for slot in range(needed + known))
        return frozenset(slot for slot, name in names if self._pods.is_taken(m.namespace, name))

    async def _create(self, errand: Errand, made: Plan, climb: Climb) -> Verdict | None:
        """Create what is planned; returns what kept a replica from having a place."""
        recipe = errand.recipe
        placements = self._placements(errand, made, climb)
        bodies = [
            replica_pod(dataclasses.replace(recipe, placement=placement), slot)
            for slot, placement in zip(made.create, placements, strict=False)
        ]
        # The launcher beside the Pods, not before: kubelet waits for a ConfigMap, users for Pods.
        results = await asyncio.gather(
            *(self._create_one(body) for body in bodies),
            self._ensure_launcher(errand),
            return_exceptions=True,
        )
        errors = [r for r in results if isinstance(r, BaseException)]
        refused = self._judge(errand, errors)
        if not errors:
            errand.mind.accept(recipe.revision)
            errand.mind.shortage = None
        missing = len(made.create) - len(bodies)
        if missing and errand.pool is not None:
            told = f"Every rung of GPUPool {errand.pool.metadata.name} holds its max already; "
            told += f"{missing} of {errand.wanted} replicas have no place."
            refused = Verdict("CapacityAvailable", "False", "LadderFull", told)
        return refused

    async def _create_one(self, body: Json) -> bool:
        async with self._at_once:
            return await self._pods.create(body)

    async def _ensure_launcher(self, errand: Errand, *, again: bool = True) -> None:
        if errand.recipe.engine.launcher:
            model = ref_of(errand.recipe.deployment)
            await self._launchers.ensure(model, errand.neighbours, again=again)

    async def _mind_launcher(self, errand: Errand) -> Verdict | None:
        """Pods that start may wait for what an operator did not live to write beside them."""
        early = errand.mind.lacking(errand.now)
        if early is not None:
            return early
        try:
            await self._ensure_launcher(errand, again=False)
        except ApiError as error:
            return self._judge(errand, [error])
        errand.mind.shortage = None
        return None

    def _judge(self, errand: Errand, errors: Iterable[BaseException]) -> Verdict | None:
        """Sort what creating met: a quota, a refused Pod; all else is raised and tried again."""
        refused = None
        for error in errors:
            shortage = _shortage(error)
            if shortage is not None:
                refused = shortage
            elif isinstance(error, Invalid | Forbidden):
                errand.mind.refuse(errand.recipe.revision, error.message, errand.now)
            else:
                raise error
        if refused is not None:
            errand.mind.lack(refused, errand.now)
        return refused

    def _placements(self, errand: Errand, made: Plan, climb: Climb) -> list[Placement]:
        """Places for the replicas to create, climbers first; fewer where the ladder is full."""
        pool, gpus = errand.pool, errand.recipe.deployment.spec.gpu.count
        if pool is None:
            return [Placement()] * len(made.create)
        found = [climb.to[pod.uid] for pod in made.delete if pod.uid in climb.to]
        used, failed = climb.used, self._failed_rungs(errand)
        while len(found) < len(made.create):
            placement = place(pool, gpus, used, failed)
            if placement is None:
                break
            used[placement.rung or ""] += gpus
            found.append(placement)
        return found

    def _reread(self, errand: Errand) -> list[PodRecord]:
        """The Pods after our own writes, ready as they were seen."""
        deployment = errand.recipe.deployment
        ready = {pod.uid: pod.ready for pod in errand.owned}
        return [
            dataclasses.replace(pod, ready=ready.get(pod.uid, pod.ready))
            for pod in self._cache.by_index(deployment.key)
            if deployment.metadata.uid in pod.owner_uids
        ]

    async def _tell_blocked(self, errand: Errand, pod: PodRecord) -> None:
        await self._recorder.warning(
            ref_of(errand.recipe.deployment),
            "SurgeWithoutNode",
            f"Pod {pod.name} has had no node for a minute; the rollout goes on by taking one old "
            "replica away first.",
            "RollingUpdate",
        )

    async def _tell_climbed(self, errand: Errand, made: Plan, climb: Climb) -> None:
        for pod in made.delete:
            place = climb.to.get(pod.uid)
            if place is not None:
                where = f"rung {place.rung} of " if place.rung else ""
                await self._recorder.warning(
                    ref_of(errand.recipe.deployment),
                    "RungWithoutNode",
                    f"Pod {pod.name} has had no node for {PATIENCE_S:.0f} s; the replica is tried "
                    f"on {where}GPUPool {place.pool}.",
                    "Climb",
                )


def _shortage(error: BaseException) -> Verdict | None:
    """What the namespace, rather than the Pod, has against being given more."""
    if not isinstance(error, Forbidden):
        return None
    if "exceeded quota" in error.message:
        return Verdict("CapacityAvailable", "False", "QuotaExceeded", error.message)
    causes = error.details.get("causes") or ()
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        told = f"The namespace is being deleted and takes nothing new: {error.message}."
        return Verdict("CapacityAvailable", "False", "NamespaceTerminating", told)
    return None
