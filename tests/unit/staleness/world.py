"""An API server in memory with the rules that count here: names, uids, versions, preconditions."""

import copy
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from glowplug.kube import (
    PODS,
    AlreadyExists,
    Conflict,
    Expired,
    Json,
    NotFound,
    Resource,
    Unreachable,
)

Event = tuple[int, str, Json]


class World:
    """The objects and, for each resource, the log of what happened to them."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._version = 100
        self._uids = 0
        self._objects: dict[tuple[str, str, str], Json] = {}
        self.log: dict[str, list[Event]] = defaultdict(list)
        self.judges: list[Callable[[str], None]] = []

    @property
    def version(self) -> int:
        return self._version

    def all(self, res: Resource) -> Iterator[Json]:
        return iter([o for (plural, _, _), o in self._objects.items() if plural == res.plural])

    def get(self, res: Resource, namespace: str, name: str) -> Json:
        found = self._objects.get((res.plural, namespace, name))
        if found is None:
            raise NotFound(404, "NotFound", f"{res.plural} {name} not found")
        return found

    def create(self, res: Resource, body: Json) -> Json:
        meta = body["metadata"]
        key = (res.plural, meta.get("namespace", ""), meta["name"])
        if key in self._objects:
            raise AlreadyExists(409, "AlreadyExists", f"{res.plural} {meta['name']} already exists")
        self._uids += 1
        made = copy.deepcopy(body)
        made["metadata"] |= {
            "uid": f"uid-{self._uids}",
            "generation": 1,
            "creationTimestamp": self._stamp(),
        }
        return self._commit(res, "ADDED", made)

    def change(self, res: Resource, namespace: str, name: str, patch: Json) -> Json:
        """Merge; the spec's own generation goes up with it."""
        old = self.get(res, namespace, name)
        wanted = patch.get("metadata", {}).get("uid")
        if wanted is not None and wanted != old["metadata"]["uid"]:
            raise Conflict(409, "Conflict", f"{name}: the uid is another's")
        new = merged(old, patch)
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        return self._commit(res, "MODIFIED", new)

    def apply(self, res: Resource, body: Json, subresource: str | None) -> Json:
        meta = body["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        if subresource is None and (res.plural, namespace, name) not in self._objects:
            return self.create(res, body)
        if subresource is not None:
            body = {"metadata": meta, subresource: body[subresource]}
            self.get(res, namespace, name)[subresource] = {}
        return self.change(res, namespace, name, body)

    def delete(self, res: Resource, namespace: str, name: str, uid: str | None = None) -> None:
        """A Pod with a node only gets its deletionTimestamp; the kubelet removes it."""
        old = self.get(res, namespace, name)
        if uid is not None and uid != old["metadata"]["uid"]:
            raise Conflict(409, "Conflict", f"{name}: the uid is another's")
        if res is not PODS or not old["spec"].get("nodeName"):
            self.remove(res, namespace, name)
        elif "deletionTimestamp" not in old["metadata"]:
            mark = {"metadata": {"deletionTimestamp": self._stamp()}}
            self.change(res, namespace, name, mark)

    def remove(self, res: Resource, namespace: str, name: str) -> None:
        gone = copy.deepcopy(self._objects.pop((res.plural, namespace, name)))
        self._note(res, "DELETED", gone)

    def _commit(self, res: Resource, what: str, body: Json) -> Json:
        meta = body["metadata"]
        self._note(res, what, body)
        self._objects[res.plural, meta.get("namespace", ""), meta["name"]] = body
        for judge in self.judges:
            judge(f"{what} {res.plural} {meta['name']}")
        return body

    def _note(self, res: Resource, what: str, body: Json) -> None:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        self.log[res.plural].append((self._version, what, copy.deepcopy(body)))

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    base = old if isinstance(old, dict) else {}
    found = {key: value for key, value in base.items() if key not in patch}
    for key, value in patch.items():
        if value is not None:
            found[key] = merged(base.get(key), value)
    return copy.deepcopy(found)


class Disturbance:
    """How badly the network and the watches behave; `calm` is set once the story is told."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.calm = False
        self.latency = chance.choice([0.01, 0.1, 0.5])
        self.delay = chance.choice([0.05, 1.0, 5.0])
        self.failing = chance.choice([0.0, 0.02, 0.1])

    def happens(self, probability: float) -> bool:
        return not self.calm and self.chance.random() < probability

    def request(self) -> float:
        return self.chance.uniform(0.0, self.latency)

    def event(self) -> float:
        return self.chance.uniform(0.0, 0.05 if self.calm else self.delay)


def lost(where: str) -> Unreachable:
    return Unreachable(0, "Unreachable", f"no answer: lost {where}")


def gone() -> Expired:
    return Expired(410, "Expired", "too old resource version")


def deliveries(log: list[Event], start: int, chance: random.Random) -> list[Event]:
    """Some of what follows `start`, reordered, with old news among it; nothing is left out."""
    news = log[start : start + chance.randint(1, 6)]
    old = chance.choices(log[:start], k=min(start, chance.choice([0, 0, 1, 3])))
    found = news + news[: chance.choice([0, 0, 1])] + old
    if chance.random() < 0.5:
        chance.shuffle(found)
    return found


Watch = AsyncGenerator[tuple[str, Json], None]
