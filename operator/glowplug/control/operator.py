"""The operator put together: caches, eyes, hands, the queue between them, and who wakes whom."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import aiohttp

from glowplug.act.events import Recorder
from glowplug.act.launcher import Launchers
from glowplug.act.pods import Pods
from glowplug.act.service import ServiceRecord, Services, trim_service
from glowplug.act.status import StatusWriter
from glowplug.act.writer import Writer
from glowplug.api import Replica, meta, replicas_of
from glowplug.control.budget import Budgets
from glowplug.control.deciding import Decider
from glowplug.control.handlers import Watcher
from glowplug.control.metrics import Metrics
from glowplug.control.model import Settings
from glowplug.control.nodecaches import CachesAhead
from glowplug.control.objects import Key, Objects
from glowplug.control.observing import Observer
from glowplug.control.pools import Pools, trim_node
from glowplug.control.queue import KeyedQueue, work
from glowplug.control.reconcile import Deployments, Eyes, Hands
from glowplug.control.replicas import Replicas
from glowplug.control.server import application
from glowplug.control.snapshots import Snapshots, snapshot_keys
from glowplug.kube import (
    ENDPOINTSLICES,
    NODES,
    PODS,
    SERVICES,
    ApiError,
    Client,
    Json,
    Lease,
    NotFound,
    PodRecord,
    WatchCache,
    trim_pod,
)
from glowplug.observe import (
    ColdStart,
    ColdStarts,
    GatewayDemand,
    PodTimeline,
    PrometheusSignals,
    ReplicaStates,
    model_keys,
    trim_slice,
)

log = logging.getLogger(__name__)

LEASE = "glowplug-operator"
_MANAGED = f"{meta.LABEL_MANAGED_BY}={meta.MANAGER}"
_WORKERS = 16
_CRDS_AGAIN_S = 5.0


class Operator:
    """One process of the operator: warm from the start, writing only while it holds the lease."""

    def __init__(
        self,
        client: Client,
        session: aiohttp.ClientSession,
        settings: Settings,
        *,
        namespace: str,
        identity: str,
        launcher: bytes,
        prometheus_url: str | None,
        owner: Json | None = None,
    ) -> None:
        self._client = client
        self.lease = Lease(client, namespace, LEASE, identity, owner=owner)
        self.queue: KeyedQueue[Key] = KeyedQueue()
        self.objects = Objects(self._object_changed)
        self.metrics = Metrics(self.objects.all)
        self._watcher = Watcher(self.objects, client)
        self._make_caches(client, namespace)
        self._node_caches = CachesAhead(
            client, session, settings.caches, self.pods, self.lease.held
        )
        self._make_eyes(session, prometheus_url)
        self._make_hands(client, settings, identity, launcher)
        self.metrics.watch(self.queue.depth, self.queue.age, self.lease.held)
        self.app = application(
            self.metrics.registry,
            self.pods.all,
            self._cold_starts.recent,
            self._in_flight,
            lambda: self.is_ready,
        )
        self._swept = False

    def _make_caches(self, client: Client, namespace: str) -> None:
        self.pods: WatchCache[PodRecord] = WatchCache(
            client,
            PODS,
            trim_pod,
            label_selector=_MANAGED,
            index=lambda pod: model_keys(pod) + snapshot_keys(pod),
        )
        self._services = WatchCache(client, SERVICES, trim_service, label_selector=_MANAGED)
        self._nodes = WatchCache(client, NODES, trim_node)
        self._slices = WatchCache(
            client,
            ENDPOINTSLICES,
            trim_slice,
            namespace=namespace,
            label_selector=f"kubernetes.io/service-name={meta.GATEWAY_SERVICE}",
        )

    def _make_eyes(self, session: aiohttp.ClientSession, prometheus_url: str | None) -> None:
        self._timeline = PodTimeline()
        self._states = ReplicaStates(self.pods, session, on_change=self._replica_changed)
        self._cold_starts = ColdStarts(
            self._timeline,
            self._states.get,
            self.pods.get,
            on_cold_start=self._started_cold,
            path_of=self._node_caches.path_of,
        )
        self._demand = GatewayDemand(
            self._slices, session, on_demand=self._wake, on_first=self._cold_starts.first
        )
        self._prometheus = (
            PrometheusSignals(prometheus_url, self._dialects, on_change=self._wake)
            if prometheus_url
            else None
        )
        self._observer = Observer(
            self.pods, self._demand, self._states, self._cold_starts, self._prometheus
        )
        for subscriber in (self._timeline, self._cold_starts.gone, self._pod_changed):
            self.pods.subscribe(subscriber)
        self._services.subscribe(self._service_changed)

    def _make_hands(
        self, client: Client, settings: Settings, identity: str, launcher: bytes
    ) -> None:
        # The one place where a write is allowed or not.
        writer = Writer(client, self.lease.held, self.metrics.wrote)
        recorder = Recorder(writer, identity, time.time)
        status = StatusWriter(writer, time.monotonic)
        launchers = Launchers(writer, launcher, time.monotonic)
        pods = Pods(client, writer, self.pods, time.time)
        self._deployments = Deployments(
            settings,
            eyes=Eyes(self.objects, self._observer, self._cold_starts),
            decider=Decider(Budgets(time.monotonic)),
            hands=Hands(
                writer=writer,
                replicas=Replicas(pods, self.pods, launchers, recorder),
                services=Services(client, writer, self._services, time.monotonic),
                status=status,
                recorder=recorder,
            ),
            metrics=self.metrics,
            others_wait=self.queue.is_busy,
            clock=time.time,
        )
        self._snapshots = Snapshots(
            settings,
            client=client,
            objects=self.objects,
            pods=self.pods,
            writer=writer,
            status=status,
            recorder=recorder,
            clock=time.time,
        )
        self._pools = Pools(self.objects, self.pods, self._nodes, status, time.time)

    @property
    def is_ready(self) -> bool:
        """Whether all that decisions rest on has been read once."""
        caches = (self.pods, self._services, self._nodes, self._slices)
        return self._swept and all(cache.is_synced for cache in caches)

    def background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What every process runs, leader or not, by name; each runs until cancelled."""
        return {
            "pods": self.pods.run(),
            "services": self._services.run(),
            "nodes": self._nodes.run(),
            "gateways": self._slices.run(),
            "demand": self._demand.run(),
            "launchers": self._states.run(),
            "kopf": self._watcher.watch(),
            "sweep": self._watcher.sweep(),
            "cold starts": self._tick(),
            **self._node_caches.background(),
        }

    async def warm(self) -> None:
        """Wait until everything has been read once."""
        while not self._swept:
            try:
                await self.objects.sweep(self._client)
                self._swept = True
            except NotFound:
                log.error("The CRDs are not installed; install them (kubectl apply -f crds/).")
                await asyncio.sleep(_CRDS_AGAIN_S)
            except ApiError as error:
                log.warning("reading our kinds: %s", error)
                await asyncio.sleep(1.0)
        for cache in (self.pods, self._services, self._nodes, self._slices):
            await cache.synced()

    def leading(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What only the leader runs, by name."""
        for kind in (self.objects.pools, self.objects.snapshots, self.objects.deployments):
            for held in kind.all():
                self.queue.add(held.key)
        tasks: dict[str, Coroutine[Any, Any, None]] = {
            "lease": self.lease.hold(),
            "queue": work(
                self.queue,
                self._reconcile,
                workers=_WORKERS,
                waited=self.metrics.queue_wait.observe,
            ),
        }
        if self._prometheus is not None:
            tasks["prometheus"] = self._prometheus.run()
        return tasks

    async def _reconcile(self, key: Key) -> float | None:
        by_kind: dict[str, Callable[[Key], Awaitable[float | None]]] = {
            "ModelDeployment": self._deployments.reconcile,
            "ModelSnapshot": self._snapshots.reconcile,
            "GPUPool": self._pools.reconcile,
        }
        timed = self.metrics.reconcile.labels(key.kind).time()
        with timed, self.metrics.failures.labels(key.kind).count_exceptions():
            return await by_kind[key.kind](key)

    def _in_flight(self, model: str) -> Mapping[str, int] | None:
        demand = self._demand.snapshot(model, time.time())
        return None if demand.stale else demand.by_pod

    def _object_changed(self, key: Key, news: bool) -> None:
        if news:
            self.queue.forgive(key)
        self.queue.add(key)
        if key.kind == "ModelSnapshot":
            for held in self.objects.deployments.all():
                if held.namespace == key.namespace:
                    self.queue.add(held.key)
        elif key.kind == "GPUPool" and news:
            for pool in self.objects.pools.all():
                self.queue.add(pool.key)
            for held in self.objects.deployments.all():
                self.queue.add(held.key)

    def _wake(self, model: str) -> None:
        namespace, _, name = model.partition("/")
        self.queue.add(Key("ModelDeployment", namespace, name))

    def _pod_changed(self, old: PodRecord | None, new: PodRecord | None) -> None:
        pod = new or old
        assert pod is not None
        for model in model_keys(pod):
            self._wake(model)
        for snapshot in snapshot_keys(pod):
            namespace, _, name = snapshot.partition("/")
            self.queue.add(Key("ModelSnapshot", namespace, name))

    def _service_changed(self, old: ServiceRecord | None, new: ServiceRecord | None) -> None:
        if old is not None and new is None and old.model is not None:
            self._wake(f"{old.namespace}/{old.model}")

    def _replica_changed(self, replica: Replica) -> None:
        self._cold_starts.changed(replica)
        self._wake(f"{replica.namespace}/{replica.model}")

    def _started_cold(self, start: ColdStart) -> None:
        held = self.objects.deployments.get(*start.model.split("/", 1))
        promise = held.object.spec.warmth.cold_start if held and held.object else None
        self.metrics.started_cold(start, promise)
        self._wake(start.model)

    def _dialects(self) -> set[str]:
        """The dialects that live replicas speak."""
        return {
            replica.metrics
            for pod in self.pods.all()
            for replica in replicas_of(pod)
            if replica.metrics is not None
        }

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._cold_starts.tick()
