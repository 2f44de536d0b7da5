"""Our own kinds as last seen, parsed once per version; an object that breaks the rules stays known.

Watch events and the answers to our own status writes meet here; the newer resourceVersion wins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from glowplug.act.refs import Ref
from glowplug.api import GPUPool, InvalidObject, ModelDeployment, ModelSnapshot, Object, parse
from glowplug.kube import GPUPOOLS, MODELDEPLOYMENTS, MODELSNAPSHOTS, Client, Json, Resource
from glowplug.kube.store import Store

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)


@dataclass(frozen=True, slots=True)
class Key:
    """One object of ours: what the queue holds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind}/{where}{self.name}"


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """One object: `object` is None when it is invalid, then `problems` say why."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    generation: int
    deleting: bool
    object: T | None
    problems: tuple[str, ...]
    status: dict[str, Any]

    @property
    def key(self) -> Key:
        """Its key in the queue."""
        return Key(self.kind, self.namespace, self.name)

    @property
    def ref(self) -> Ref:
        """It, as owner and as what an event is about."""
        return Ref(self.kind, self.namespace, self.name, self.uid)


_PARTS = frozenset({"decision", "coldStart", "tiers", "snapshot", "cost", "memory"})


def _readable(status: Any) -> dict[str, Any]:
    """A stored status as far as it has the form it should have; the rest is written anew."""
    if not isinstance(status, dict):
        return {}
    known = {k: v for k, v in status.items() if k not in _PARTS or isinstance(v, dict)}
    conditions = known.pop("conditions", None)
    if isinstance(conditions, list):
        known["conditions"] = [c for c in conditions if isinstance(c, dict)]
    return known


class Kind(Generic[T]):
    """All objects of one kind. `on_change(key, news)`: after each change; news: of the spec."""

    def __init__(
        self, resource: Resource, model: type[T], on_change: Callable[[Key, bool], None]
    ) -> None:
        self.resource = resource
        self._model = model
        self._on_change = on_change
        self._store: Store[Held[T]] = Store()
        self._store.subscribe(self._tell)

    def get(self, namespace: str, name: str) -> Held[T] | None:
        """The object, or None."""
        return self._store.get(namespace, name)

    def all(self) -> tuple[Held[T], ...]:
        """Every object, invalid ones included."""
        return self._store.all()

    def put(self, body: Json) -> None:
        """Take an object as the API server sent it, unless something newer is known."""
        self._store.put(self._hold(body))

    def remove(self, body: Json) -> None:
        """Take a deletion."""
        self._store.delete(self._hold(body))

    async def sweep(self, client: Client) -> None:
        """List all and forget what is gone: a watch that was cut has not told of deletions."""
        held: list[Held[T]] = []
        version = 0
        async for page in client.pages(self.resource):
            version = int(page["metadata"]["resourceVersion"])
            held += [self._hold(item) for item in page.get("items") or ()]
            page.clear()  # before the next one is read
        self._store.replace(held, version)

    def _hold(self, body: Json) -> Held[T]:
        meta = body["metadata"]
        known = self._store.get(meta.get("namespace") or "", meta["name"])
        if known is not None and known.resource_version == meta["resourceVersion"]:
            return known
        found: T | None = None
        problems: tuple[str, ...] = ()
        try:
            found = parse(self._model, body)
        except InvalidObject as error:
            problems = error.problems
        return Held(
            kind=self._model.kind,
            namespace=meta.get("namespace") or "",
            name=meta["name"],
            uid=meta["uid"],
            resource_version=meta["resourceVersion"],
            generation=int(meta.get("generation") or 0),
            deleting="deletionTimestamp" in meta,
            object=found,
            problems=problems,
            status=_readable(body.get("status")),
        )

    def _tell(self, old: Held[T] | None, new: Held[T] | None) -> None:
        held = new or old
        if held is not None:
            self._on_change(held.key, _version(old) != _version(new))


def _version(held: Held[T] | None) -> tuple[str, int] | None:
    return None if held is None else (held.uid, held.generation)


class Objects:
    """The three kinds."""

    def __init__(self, on_change: Callable[[Key, bool], None]) -> None:
        self.deployments = Kind(MODELDEPLOYMENTS, ModelDeployment, on_change)
        self.snapshots = Kind(MODELSNAPSHOTS, ModelSnapshot, on_change)
        self.pools = Kind(GPUPOOLS, GPUPool, on_change)

    def all(self) -> Iterator[Held[Any]]:
        """Every object of every kind."""
        for kind in (self.deployments, self.snapshots, self.pools):
            yield from kind.all()

    async def sweep(self, client: Client) -> None:
        """List every kind; raises `ApiError`, `NotFound` where a CRD is missing."""
        for kind in (self.deployments, self.snapshots, self.pools):
            await kind.sweep(client)
