"""The memory of a watch cache: trimmed records that only ever move forward in time.

Pure and synchronous. Every change carries a resourceVersion, and resourceVersions of one resource
are ordered as integers (KEP-5504), so news that comes late or twice can be told from news.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

logger = logging.getLogger(__name__)


class Record(Protocol):
    """What a store must know about what it keeps."""

    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def uid(self) -> str: ...  # noqa: D102
    @property
    def resource_version(self) -> str: ...  # noqa: D102


T = TypeVar("T", bound=Record)
Subscriber = Callable[[T | None, T | None], None]

_TOMBSTONES = 4096


class Store(Generic[T]):
    """Records by (namespace, name), with one secondary index; `""` is the cluster's namespace."""

    def __init__(self, index: Callable[[T], list[str]] | None = None) -> None:
        self._items: dict[tuple[str, str], T] = {}
        self._index = index
        self._by_index: dict[str, dict[tuple[str, str], T]] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()  # uid -> version it was gone at
        self._listed = -1  # version of the last complete list
        self._subscribers: list[Subscriber[T]] = []

    def __len__(self) -> int:
        return len(self._items)

    def get(self, namespace: str, name: str) -> T | None:
        """The record, or None."""
        return self._items.get((namespace, name))

    def all(self) -> tuple[T, ...]:
        """Every record, in no order."""
        return tuple(self._items.values())

    def by_index(self, key: str) -> tuple[T, ...]:
        """The records whose index function names `key`, in no order."""
        return tuple(self._by_index.get(key, {}).values())

    def subscribe(self, fn: Subscriber[T]) -> None:
        """Call `fn(old, new)` after each change, in order; None is absence."""
        self._subscribers.append(fn)

    def put(self, new: T) -> bool:
        """Take a record unless it is older than what is known; true if the store changed."""
        version = int(new.resource_version)
        key = (new.namespace, new.name)
        old = self._items.get(key)
        if old is not None and version <= int(old.resource_version):
            return False
        if version <= self._gone.get(new.uid, -1):
            return False
        if old is None and version <= self._listed:
            return False  # the answer to a write, overtaken by a list that no longer had it
        if old is not None and old.uid != new.uid:
            self._drop(old, version)
            old = None
        self._unindex(old)
        self._items[key] = new
        for entry in self._keys(new):
            self._by_index.setdefault(entry, {})[key] = new
        self._tell(old, new)
        return True

    def delete(self, gone: T) -> bool:
        """Forget what the record names, as of its resourceVersion; true if the store changed.

        A newer object of the same name stays; older news of the deleted one is refused later.
        """
        version = int(gone.resource_version)
        self._bury(gone.uid, version)
        held = self._items.get((gone.namespace, gone.name))
        if held is None or int(held.resource_version) > version:
            return False
        self._drop(held, version)
        return True

    def replace(self, listed: Iterable[T], list_version: int) -> None:
        """Take a complete list made at `list_version`; what it lacks and is not newer is gone."""
        present = set()
        for record in listed:
            present.add((record.namespace, record.name))
            self.put(record)
        for key, held in list(self._items.items()):
            if key not in present and int(held.resource_version) <= list_version:
                self._drop(held, list_version)
        self._listed = max(self._listed, list_version)

    def clear(self) -> None:
        """Forget everything, tombstones too: the server's history is another one."""
        for held in list(self._items.values()):
            self._drop(held, int(held.resource_version))
        self._gone.clear()
        self._listed = -1

    def _drop(self, held: T, version: int) -> None:
        self._bury(held.uid, version)
        self._unindex(held)
        del self._items[held.namespace, held.name]
        self._tell(held, None)

    def _bury(self, uid: str, version: int) -> None:
        self._gone[uid] = max(version, self._gone.pop(uid, -1))
        while len(self._gone) > _TOMBSTONES:
            self._gone.popitem(last=False)

    def _keys(self, record: T) -> list[str]:
        return self._index(record) if self._index is not None else []

    def _unindex(self, record: T | None) -> None:
        if record is None:
            return
        for entry in self._keys(record):
            bucket = self._by_index.get(entry, {})
            bucket.pop((record.namespace, record.name), None)
            if not bucket:
                self._by_index.pop(entry, None)

    def _tell(self, old: T | None, new: T | None) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(old, new)
            except Exception:
                logger.exception("a subscriber of the cache failed; the cache goes on")
