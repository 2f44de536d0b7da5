"""One pass over one ModelSnapshot: a Job takes it, its Pod tells the result, status keeps it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from glowplug.act.conditions import Verdict, judged
from glowplug.act.events import Recorder
from glowplug.act.snapshot import (
    COMPONENT_SNAPSHOT,
    LABEL_SNAPSHOT,
    RETRY_AFTER_S,
    Taken,
    job_body,
    job_name,
    job_state,
    progress_verdict,
    status_of,
    taken_from,
)
from glowplug.act.status import StatusWriter
from glowplug.act.weights import destination_of, is_taken
from glowplug.act.writer import Writer
from glowplug.api import ModelSnapshot, condition, meta, timestamp
from glowplug.control.model import Settings
from glowplug.control.objects import Held, Key, Objects
from glowplug.control.report import news
from glowplug.kube import (
    JOBS,
    MODELSNAPSHOTS,
    AlreadyExists,
    Client,
    Json,
    NotFound,
    PodRecord,
    WatchCache,
)

log = logging.getLogger(__name__)

LOOK_AGAIN_S = 10.0


def snapshot_keys(pod: PodRecord) -> list[str]:
    """The ModelSnapshot that a Pod takes, as "namespace/name"; none for other Pods."""
    name = pod.labels.get(LABEL_SNAPSHOT)
    mine = pod.labels.get(meta.LABEL_COMPONENT) == COMPONENT_SNAPSHOT
    return [f"{pod.namespace}/{name}"] if mine and name else []


class Snapshots:
    """Reconciles ModelSnapshots; `clock` in seconds since the epoch."""

    def __init__(
        self,
        settings: Settings,
        *,
        client: Client,
        objects: Objects,
        pods: WatchCache[PodRecord],
        writer: Writer,
        status: StatusWriter,
        recorder: Recorder,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._client = client
        self._objects = objects
        self._pods = pods
        self._writer = writer
        self._status = status
        self._recorder = recorder
        self._clock = clock

    async def reconcile(self, key: Key) -> float | None:
        """Look at one object; returns the seconds until its next look, None for none."""
        held = self._objects.snapshots.get(key.namespace, key.name)
        if held is None or held.deleting:
            return None
        if held.object is None:
            told = f"This object is invalid: {'; '.join(held.problems)}."
            await self._report(held, Verdict("Ready", "False", "InvalidSpec", told))
            return None
        target = destination_of(held.object, self._settings.store)
        if target is None:
            told = "spec.destination is not set and the operator has no store (store.url)."
            await self._report(held, Verdict("Ready", "False", "NoStore", told))
            return None
        name = job_name(held.object, target)
        if is_taken(held.object) and held.status.get("observedGeneration") == held.generation:
            return None
        pods = self._pods_of(held, name)
        taken = taken_from(pods)
        if taken is not None:
            await self._finish(held, taken)
            return None
        job = await self._job(held, name)
        if job is None:
            try:
                made = job_body(held.object, target, held.ref, self._settings.snapshotter_image)
                job = await self._writer.create(JOBS, made)
            except AlreadyExists:
                return LOOK_AGAIN_S
        await self._report(held, progress_verdict(pods, job, held.namespace))
        return await self._retry(held, job)

    async def _job(self, held: Held[ModelSnapshot], name: str) -> Json | None:
        try:
            return await self._client.get(JOBS, name, held.namespace)
        except NotFound:
            return None

    def _pods_of(self, held: Held[ModelSnapshot], job: str) -> tuple[PodRecord, ...]:
        known = self._pods.by_index(f"{held.namespace}/{held.name}")
        return tuple(
            pod
            for pod in known
            if pod.labels.get(LABEL_SNAPSHOT) == held.name
            and pod.labels.get("batch.kubernetes.io/job-name") == job
        )

    async def _retry(self, held: Held[ModelSnapshot], job: Json) -> float:
        """Delete a Job that has failed for long enough: the next pass makes it anew."""
        if job_state(job) != "Failed":
            return LOOK_AGAIN_S
        left = _failed_at(job) + RETRY_AFTER_S - self._clock()
        if left > 0:
            return left
        metadata = job["metadata"]
        await self._writer.delete(
            JOBS,
            metadata["name"],
            held.namespace,
            uid=metadata["uid"],
            propagation="Background",
        )
        return LOOK_AGAIN_S

    async def _finish(self, held: Held[ModelSnapshot], taken: Taken) -> None:
        told = f"{taken.files} files, {taken.bytes} bytes, are in the store as {taken.digest}."
        lasting = status_of(taken) | {"takenAt": timestamp(self._clock())}
        await self._report(held, Verdict("Ready", "True", "Taken", told), lasting)

    async def _report(
        self, held: Held[ModelSnapshot], verdict: Verdict, lasting: dict[str, Any] | None = None
    ) -> None:
        before = held.status.get("conditions") or []
        known = condition(before, "Ready")
        generation = held.generation
        after = {
            "observedGeneration": generation,
            **(lasting or {}),
            "conditions": judged([known] if known else [], [verdict], self._clock(), generation),
        }
        written = await self._status.write(MODELSNAPSHOTS, held.ref, held.status, after)
        if written is None:
            return
        self._objects.snapshots.put(written)
        for one in news(before, after["conditions"]):
            say = self._recorder.warning if one.warning else self._recorder.normal
            await say(held.ref, one.reason, one.sentence)


def _failed_at(job: Json) -> float:
    for one in (job.get("status") or {}).get("conditions") or ():
        if one.get("type") == "Failed" and one.get("lastTransitionTime"):
            return datetime.fromisoformat(one["lastTransitionTime"]).timestamp()
    return 0.0
