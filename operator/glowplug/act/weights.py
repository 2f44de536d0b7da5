"""Where a replica's weights come from, and the memory that they take; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from glowplug.api import ModelDeployment, ModelSnapshot, ResolvedEngine, condition
from glowplug.api.fields import parse_quantity

RESTORE_MEMORY = 256 * 2**20
"""Bytes that a restore of its own container needs beside the weights: its ring and itself."""


@dataclass(frozen=True, slots=True)
class Store:
    """The operator's default destination of snapshots (the chart's `store`).

    `cache` is the address at which each node's cache of it is reached.
    """

    url: str
    endpoint: str | None = None
    secret: str | None = None
    cache: str | None = None


@dataclass(frozen=True, slots=True)
class Weights:
    """What a replica restores. `size` is in bytes, None while nobody has counted them.

    `secret` names the Secret whose AWS_* variables read `url`; `snapshot` the ModelSnapshot.
    """

    url: str
    kind: Literal["snapshot", "source"]
    digest: str | None = None
    size: int | None = None
    endpoint: str | None = None
    secret: str | None = None
    snapshot: str | None = None
    cache: str | None = None

    @property
    def claim(self) -> tuple[str, str] | None:
        """(claim name, path in it) when the weights lie in a volume and are not restored."""
        scheme, _, rest = self.url.partition("://")
        if scheme != "pvc":
            return None
        name, _, path = rest.partition("/")
        return name, path.strip("/")


def is_taken(snapshot: ModelSnapshot) -> bool:
    """Whether replicas can load from it."""
    ready = condition(snapshot.status.get("conditions") or [], "Ready")
    return bool(ready and ready.get("status") == "True" and snapshot.status.get("digest"))


def weights_of(
    deployment: ModelDeployment, snapshot: ModelSnapshot | None, store: Store | None
) -> Weights:
    """The snapshot once it is taken, the source until then."""
    model = deployment.spec.model
    if snapshot is not None and is_taken(snapshot):
        target = destination_of(snapshot, store)
        if target is not None:
            return Weights(
                url=target.url,
                kind="snapshot",
                digest=str(snapshot.status["digest"]),
                size=snapshot.status.get("bytes"),
                endpoint=target.endpoint,
                secret=target.secret,
                snapshot=snapshot.metadata.name,
                cache=target.cache,
            )
    return Weights(
        url=model.source,
        kind="source",
        endpoint=model.endpoint,
        secret=model.secret_ref.name if model.secret_ref else None,
    )


def destination_of(snapshot: ModelSnapshot, store: Store | None) -> Store | None:
    """Where a snapshot lies: its own destination, else the operator's store, None without any."""
    own = snapshot.spec.destination
    if own is None:
        return store
    return Store(own.url, own.endpoint, own.secret_ref.name if own.secret_ref else None)


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory (bytes) of a replica's containers; a limit is None where it cannot be known yet.

    A tmpfs page is charged to the container that writes it first: the engine's where the restore
    is its child or an init container, the restore's own where that is a container beside it.
    """

    engine_request: int | None = None
    engine_limit: int | None = None
    restore_limit: int | None = None
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def status(self) -> dict[str, Any] | None:
        """`status.memory`, None while the limit is unknown."""
        if not self.parts:
            return None
        return {"limit": sum(self.parts.values()), "parts": dict(self.parts)}


def memory_of(engine: ResolvedEngine, weights: Weights) -> Memory:
    """Limit = what the engine was given + the weights in tmpfs (+ the restore's own container)."""
    limit = _bytes(engine.resources.limits.get("memory"))
    request = _bytes(engine.resources.requests.get("memory"))
    if weights.claim is not None:
        return Memory(request, limit, None, {} if limit is None else {"engine": limit})
    if weights.size is None:
        # A limit that forgets the weights would kill the replica, so there is none until then.
        beside = engine.restore == "Sidecar"
        return Memory(request, limit if beside else None)
    if engine.restore == "Sidecar":
        restore = weights.size + RESTORE_MEMORY
        parts = {"engine": limit, "weights": weights.size, "restore": RESTORE_MEMORY}
        known = {key: value for key, value in parts.items() if value is not None}
        return Memory(request, limit, restore, known if limit is not None else {})
    return Memory(
        engine_request=None if request is None else request + weights.size,
        engine_limit=None if limit is None else limit + weights.size,
        parts={} if limit is None else {"engine": limit, "weights": weights.size},
    )


def _bytes(quantity: Any) -> int | None:
    """A quantity in bytes; None for none and for forms that only the API server reads."""
    if quantity is None:
        return None
    try:
        return parse_quantity(str(quantity))
    except ValueError:
        return None
