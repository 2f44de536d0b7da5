"""GPUPools: which one a model runs in, what its Pods cost there, and what the pool reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from glowplug.act.conditions import Verdict, judged
from glowplug.act.status import StatusWriter
from glowplug.api import GPUPool, ModelDeployment
from glowplug.control.ladder import gpus_of, holds_gpus, rung_of
from glowplug.control.objects import Held, Key, Kind, Objects
from glowplug.kube import Json, PodRecord, WatchCache

REPORT_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A Node cut down to what a pool counts; `offers` is allocatable, extended resources only."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    labels: dict[str, str]
    offers: dict[str, int]


def trim_node(obj: Json) -> NodeRecord:
    """A Node as the API server sends it -> NodeRecord."""
    meta = obj["metadata"]
    allocatable = (obj.get("status") or {}).get("allocatable") or {}
    return NodeRecord(
        namespace="",
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        labels=dict(meta.get("labels") or {}),
        offers={name: int(n) for name, n in allocatable.items() if "/" in name and n.isdigit()},
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """The pool of a model, None where anything goes, or why there is none that it may use."""

    pool: GPUPool | None = None
    refused: Verdict | None = None


def choose_pool(deployment: ModelDeployment, pools: Sequence[Held[GPUPool]]) -> Choice:
    """The pool that the model names, else the default one; no pools at all means anywhere."""
    named = deployment.spec.gpu.pool
    if named is None:
        if not pools or deployment.spec.gpu.count == 0:
            return Choice()
        held = default_pool(pools)
        if held is None:
            return _refused(
                "NoDefaultPool",
                "No GPUPool is the default: set spec.default on one, or name one in gpu.pool.",
            )
    else:
        held = next((pool for pool in pools if pool.name == named), None)
        if held is None:
            return _refused(
                "PoolNotFound", f"gpu.pool names {named}, and there is no GPUPool of that name."
            )
    if held.object is None:
        return _refused(
            "PoolInvalid", f"GPUPool {held.name} is invalid: {'; '.join(held.problems)}."
        )
    allowed = held.object.spec.allowed_namespaces
    if allowed and deployment.metadata.namespace not in allowed:
        return _refused(
            "PoolNotAllowed",
            f"GPUPool {held.name} is not open to namespace {deployment.metadata.namespace}; add it "
            "to the pool's allowedNamespaces or name another pool.",
        )
    return Choice(held.object)


def _refused(reason: str, sentence: str) -> Choice:
    return Choice(refused=Verdict("CapacityAvailable", "False", reason, sentence))


def default_pool(pools: Iterable[Held[GPUPool]]) -> Held[GPUPool] | None:
    """The default pool; of several the oldest, so that a second one moves nobody."""
    claims = [pool for pool in pools if pool.object is not None and pool.object.spec.default]
    return min(claims, key=_age, default=None)


def _age(pool: Held[GPUPool]) -> tuple[str, str]:
    created = pool.object.metadata.creation_timestamp if pool.object is not None else None
    return (created or "", pool.name)


def dollars_per_hour(pool: GPUPool, pods: Iterable[PodRecord]) -> float:
    """What these Pods' GPUs cost by the pool's ladder; a Pod without a node costs nothing yet."""
    prices = {rung.name: rung.dollars_per_gpu_hour for rung in pool.spec.ladder}
    return sum(prices.get(rung_of(pod), 0.0) * gpus_of(pod) for pod in pods if pod.node is not None)


class Pools:
    """Reports the state of each GPUPool; `clock` in seconds since the epoch."""

    def __init__(
        self,
        objects: Objects,
        pods: WatchCache[PodRecord],
        nodes: WatchCache[NodeRecord],
        status: StatusWriter,
        clock: Callable[[], float],
    ) -> None:
        self._objects = objects
        self._pods = pods
        self._nodes = nodes
        self._status = status
        self._clock = clock

    @property
    def kind(self) -> Kind[GPUPool]:
        """The pools as last seen."""
        return self._objects.pools

    def pods_of(self, pool: str) -> list[PodRecord]:
        """Pods that hold or wait for GPUs of the pool."""
        return [pod for pod in self._pods.all() if holds_gpus(pod, pool)]

    async def reconcile(self, key: Key) -> float | None:
        """Bring one pool's status up to date."""
        held = self.kind.get("", key.name)
        if held is None:
            return None
        after = self._report(held)
        written = await self._status.write(self.kind.resource, held.ref, held.status, after)
        if written is not None:
            self.kind.put(written)
        return REPORT_EVERY_S

    def _report(self, held: Held[GPUPool]) -> Json:
        before = held.status.get("conditions") or []
        verdict = self._verdict(held)
        status: Json = {
            "observedGeneration": held.generation,
            "conditions": judged(before, [verdict], self._clock(), held.generation),
        }
        if held.object is None:
            return status
        nodes = self._matching(held.object)
        pods = self.pods_of(held.name)
        resources = self._resources(held.name)
        return status | {
            "nodes": len(nodes),
            "gpus": sum(node.offers.get(name, 0) for node in nodes for name in resources),
            "usedGpus": sum(gpus_of(pod) for pod in pods if pod.node is not None),
            "dollarsPerHour": dollars_per_hour(held.object, pods),
        }

    def _verdict(self, held: Held[GPUPool]) -> Verdict:
        if held.object is None:
            return Verdict("Ready", "False", "InvalidSpec", f"{'; '.join(held.problems)}.")
        first = default_pool(self.kind.all())
        if held.object.spec.default and first is not None and first.uid != held.uid:
            return Verdict(
                "Ready",
                "False",
                "SecondDefault",
                f"GPUPool {first.name} is the default already; models that name no pool run there. "
                "Set spec.default on one pool only.",
            )
        return Verdict("Ready", "True", "Usable", "Models may run here.")

    def _matching(self, pool: GPUPool) -> list[NodeRecord]:
        wanted = pool.spec.node_selector.items()
        return [node for node in self._nodes.all() if wanted <= node.labels.items()]

    def _resources(self, pool: str) -> set[str]:
        """The accelerator resources that models ask this pool for."""
        names = {"nvidia.com/gpu"}
        pools = self.kind.all()
        for held in self._objects.deployments.all():
            if held.object is not None:
                choice = choose_pool(held.object, pools)
                if choice.pool is not None and choice.pool.metadata.name == pool:
                    names.add(held.object.spec.gpu.resource)
        return names
