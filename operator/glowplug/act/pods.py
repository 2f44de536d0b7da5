"""Replica Pods: created, marked, taken back, deleted; what was written is known at once.

Pods are created and never applied: the name guards against a second one, so AlreadyExists is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from glowplug.act.plan import waits_by_itself
from glowplug.act.writer import Writer
from glowplug.api import meta
from glowplug.api.conditions import timestamp
from glowplug.kube import (
    PODS,
    AlreadyExists,
    Client,
    Conflict,
    Json,
    NotFound,
    PodRecord,
    WatchCache,
)

log = logging.getLogger(__name__)

DRAINED_GRACE_S = 5
"""Grace of a drained Pod that has no launcher: it need not sit out its preStop sleep."""
_STRANGER_S = 60.0
"""How long a name is believed to be taken by a Pod that lost our labels."""


class Pods:
    """The Pod verbs of this operator over its one Pod cache; `clock` in seconds since the epoch."""

    def __init__(
        self,
        client: Client,
        writer: Writer,
        cache: WatchCache[PodRecord],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._writer = writer
        self._cache = cache
        self._clock = clock
        self._strangers: dict[tuple[str, str], float] = {}

    def is_taken(self, namespace: str, name: str) -> bool:
        """Whether a Pod has this name, be it one that the cache leaves out for its labels."""
        if self._cache.get(namespace, name) is not None:
            return True
        return self._clock() < self._strangers.get((namespace, name), 0.0)

    async def create(self, body: Json) -> bool:
        """Create the Pod; false if its name was taken, which `is_taken` then knows too."""
        metadata = body["metadata"]
        try:
            self._cache.upsert(await self._writer.create(PODS, body))
        except AlreadyExists:
            try:
                found = await self._client.get(PODS, metadata["name"], metadata["namespace"])
            except NotFound:
                return False
            self._cache.upsert(found)
            if self._cache.get(metadata["namespace"], metadata["name"]) is None:
                until = self._clock() + _STRANGER_S
                self._strangers[metadata["namespace"], metadata["name"]] = until
            return False
        return True

    async def try_create(self, body: Json) -> None:
        """Ask the API server whether it would take this Pod; its refusal is raised."""
        try:
            await self._writer.create(PODS, body, dry_run=True)
        except AlreadyExists:
            return

    async def drain(self, pod: PodRecord) -> None:
        """Mark a replica: gateways stop sending to it."""
        await self._mark(pod, meta.STATE_DRAINING, timestamp(self._clock()))

    async def reactivate(self, pod: PodRecord) -> None:
        """Take a draining replica back."""
        await self._mark(pod, meta.STATE_ACTIVE, None)

    async def delete(self, pod: PodRecord) -> None:
        """Delete this very Pod, never one that has taken its name since."""
        drained = pod.labels.get(meta.LABEL_STATE) == meta.STATE_DRAINING
        grace = DRAINED_GRACE_S if drained and not waits_by_itself(pod) else None
        try:
            await self._writer.delete(
                PODS, pod.name, pod.namespace, uid=pod.uid, grace_seconds=grace
            )
        except Conflict:
            log.info("pod was replaced before its deletion", extra={"pod": pod.name})
            return
        if pod.node is None:  # nobody has to stop it, so it is gone at once
            self._cache.remove(pod.namespace, pod.name, pod.uid)

    async def _mark(self, pod: PodRecord, state: str, since: str | None) -> None:
        body = {
            "metadata": {
                "uid": pod.uid,
                "labels": {meta.LABEL_STATE: state},
                "annotations": {meta.ANNOTATION_DRAINING_SINCE: since},
            }
        }
        try:
            self._cache.upsert(await self._writer.patch(PODS, pod.name, body, pod.namespace))
        except (Conflict, NotFound):
            log.info("pod was gone before it could be marked", extra={"pod": pod.name})
