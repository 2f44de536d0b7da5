"""The cluster -> the fleet: ModelDeployments and replica Pods, watched. The only kube wiring."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from glowplug.api import ModelDeployment, Replica, engine_type, meta, parse, replicas_of
from glowplug.gateway.fleet import Fleet
from glowplug.gateway.model import ServedModel
from glowplug.kube import (
    MODELDEPLOYMENTS,
    PODS,
    Client,
    Json,
    PodRecord,
    WatchCache,
    trim_pod,
)

# Requests at one replica when the user named no target: enough to keep a batch busy.
DEFAULT_SLOTS = 16


@dataclass(frozen=True, slots=True)
class DeploymentRecord:
    """A ModelDeployment as the cache keeps it."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    deleting: bool
    model: ServedModel


class ClusterWatch:
    """Feeds a fleet. namespace: the only one to serve, None for all."""

    def __init__(self, client: Client, fleet: Fleet, namespace: str | None = None) -> None:
        self._fleet = fleet
        self._models = WatchCache(client, MODELDEPLOYMENTS, trim_deployment, namespace=namespace)
        self._pods = WatchCache(
            client,
            PODS,
            trim_pod,
            namespace=namespace,
            label_selector=f"{meta.LABEL_COMPONENT}={meta.COMPONENT_REPLICA}",
        )
        self._models.subscribe(self._model_changed)
        self._pods.subscribe(self._pod_changed)

    @property
    def synced(self) -> bool:
        """Whether both first lists are in."""
        return self._models.is_synced and self._pods.is_synced

    async def until_synced(self) -> None:
        """Wait for both first lists."""
        await self._models.synced()
        await self._pods.synced()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._models.run())
            group.create_task(self._pods.run())

    def _model_changed(self, old: DeploymentRecord | None, new: DeploymentRecord | None) -> None:
        if new is not None and not new.deleting:
            self._fleet.put_model(new.model)
        elif old is not None:
            self._fleet.remove_model(old.model.key)

    def _pod_changed(self, old: PodRecord | None, new: PodRecord | None) -> None:
        present = replicas_of(new) if new is not None else ()
        keys = {replica.key for replica in present}
        for replica in replicas_of(old) if old is not None else ():
            if replica.key not in keys:
                self._fleet.remove_replica(replica)
        for replica in present:
            assert new is not None
            self._fleet.put_replica(replica, stage_of(new, replica))


def trim_deployment(obj: Json) -> DeploymentRecord:
    """A ModelDeployment as the API server sends it -> DeploymentRecord."""
    deployment = parse(ModelDeployment, obj)
    metadata, spec = deployment.metadata, deployment.spec
    created = metadata.creation_timestamp
    model = ServedModel(
        namespace=metadata.namespace,
        name=metadata.name,
        served_name=deployment.served_name,
        created=datetime.fromisoformat(created).timestamp() if created else 0.0,
        slots=spec.scaling.target_concurrency or DEFAULT_SLOTS,
        max_hold=spec.gateway.max_hold,
        max_hold_plain=spec.gateway.max_hold_plain,
        max_held=spec.gateway.max_held,
        paths=frozenset(engine_type(spec.engine.type).paths),
        pinned=spec.replicas,
        estimate=_estimate(deployment.status),
    )
    return DeploymentRecord(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        deleting=metadata.deletion_timestamp is not None,
        model=model,
    )


def stage_of(pod: PodRecord, replica: Replica) -> str:
    """How far a Pod has come, as far as its own status tells."""
    if not pod.scheduled:
        return "schedule"
    if not pod.sandbox_ready:
        return "sandbox"
    if replica.launcher_port is not None:
        return "image"
    # Without a launcher the containers are all there is to see.
    if any(c.running and c.name == meta.CONTAINER_ENGINE for c in pod.containers):
        return "load"
    if any(c.running and c.name == meta.CONTAINER_RESTORE for c in pod.init_containers):
        return "restore"
    return "image"


def _estimate(status: Json) -> float | None:
    cold_start = status.get("coldStart")
    p50 = cold_start.get("p50") if isinstance(cold_start, dict) else None
    return float(p50) if isinstance(p50, int | float) else None
