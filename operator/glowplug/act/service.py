"""One headless Service per model, for clients that bypass the gateway."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from glowplug.act.refs import Ref
from glowplug.act.writer import Writer
from glowplug.api import meta
from glowplug.kube import SERVICES, Client, Forbidden, Invalid, Json, NotFound, WatchCache

FIELD_MANAGER = "glowplug-service"
_APPLIED = f"{meta.GROUP}/applied"
_LOOK_AGAIN_S = 60.0


class NameTakenError(Exception):
    """Somebody else's Service has the model's name; it is left alone."""


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What has to be known of a Service: the model it is of, if ours, and what it was made from."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    model: str | None
    applied: str | None


def trim_service(obj: Json) -> ServiceRecord:
    """A Service as the API server sends it -> ServiceRecord."""
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    managed = labels.get(meta.LABEL_MANAGED_BY) == meta.MANAGER
    return ServiceRecord(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        model=labels.get(meta.LABEL_MODEL) if managed else None,
        applied=(metadata.get("annotations") or {}).get(_APPLIED),
    )


def replica_selector(model: str) -> dict[str, str]:
    """Labels of all replicas of a model, draining ones included."""
    return {meta.LABEL_MODEL: model, meta.LABEL_COMPONENT: meta.COMPONENT_REPLICA}


def service_body(owner: Ref, port: int) -> Json:
    """The Service: endpoints are the replicas that take new requests."""
    spec = {
        "clusterIP": "None",
        "selector": replica_selector(owner.name) | {meta.LABEL_STATE: meta.STATE_ACTIVE},
        "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
    }
    made_from = orjson.dumps([spec, owner.uid], option=orjson.OPT_SORT_KEYS)
    return {
        "metadata": {
            "name": owner.name,
            "namespace": owner.namespace,
            "labels": {
                meta.LABEL_MANAGED_BY: meta.MANAGER,
                meta.LABEL_MODEL: owner.name,
            },
            "annotations": {_APPLIED: hashlib.sha256(made_from).hexdigest()[:16]},
            "ownerReferences": [owner.owner()],
        },
        "spec": spec,
    }


class Services:
    """Keeps the Services as they should be; `clock` in any monotonic seconds."""

    def __init__(
        self,
        client: Client,
        writer: Writer,
        cache: WatchCache[ServiceRecord],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._writer = writer
        self._cache = cache
        self._clock = clock
        self._refused: dict[str, float] = {}

    async def ensure(self, owner: Ref, port: int) -> None:
        """Make the Service of `owner`; raises `NameTakenError` where another has its name.

        `Invalid` and `Forbidden` are raised once, then the Service is left alone for a while.
        """
        body = service_body(owner, port)
        known = self._cache.get(owner.namespace, owner.name)
        if known is not None and known.applied == body["metadata"]["annotations"][_APPLIED]:
            return
        if self._clock() < self._refused.get(owner.uid, 0.0):
            return
        if known is None or known.model != owner.name:
            await self._look(owner)
        try:
            made = await self._writer.apply(SERVICES, body, field_manager=FIELD_MANAGER)
        except (Invalid, Forbidden):
            self._refused[owner.uid] = self._clock() + _LOOK_AGAIN_S
            raise
        self._cache.upsert(made)
        self._refused.pop(owner.uid, None)

    def forget(self, uid: str) -> None:
        """The model is gone."""
        self._refused.pop(uid, None)

    async def _look(self, owner: Ref) -> None:
        try:
            found = trim_service(await self._client.get(SERVICES, owner.name, owner.namespace))
        except NotFound:
            return
        if found.model != owner.name:
            self._refused[owner.uid] = self._clock() + _LOOK_AGAIN_S
            raise NameTakenError(
                f"Service {owner.namespace}/{owner.name} exists and is not this model's; the model "
                "is reachable through the gateway only until that Service is deleted or renamed."
            )
