"""LIST + WATCH of one resource into trimmed records that the operator and the gateway read.

A write's response enters by `upsert` at once, so that a loop sees its own writes before the watch
brings them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing
from typing import Generic

from glowplug.kube.client import Client
from glowplug.kube.errors import ApiError, Expired
from glowplug.kube.resources import Resource
from glowplug.kube.store import Store, Subscriber, T
from glowplug.kube.transport import Json

logger = logging.getLogger(__name__)

_RELIST_AFTER = 3
_LONGEST_PAUSE = 10.0
_SOUND_WATCH = 1.0


class WatchCache(Generic[T]):
    """A copy of one resource, kept current by `run()`.

    trim: object as read -> record; index: record -> the keys `by_index` finds it under.
    watch_seconds: how long the server may keep one watch; silence: seconds without a byte (the
    server sends bookmarks about every minute) after which a watch is taken for dead.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        trim: Callable[[Json], T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        index: Callable[[T], list[str]] | None = None,
        watch_seconds: float = 300.0,
        silence: float = 90.0,
    ) -> None:
        self._client = client
        self._resource = resource
        self._trim = trim
        self._namespace = namespace
        self._selector = label_selector
        self._watch_seconds = watch_seconds
        self._silence = silence
        self._store: Store[T] = Store(index)
        self._synced = asyncio.Event()
        self._version: str | None = None  # where the next watch starts; None = list first
        self._highest = 0
        self._progress = False

    async def synced(self) -> None:
        """Wait until the first complete list is in."""
        await self._synced.wait()

    @property
    def is_synced(self) -> bool:
        """Whether the first complete list is in."""
        return self._synced.is_set()

    def get(self, namespace: str, name: str) -> T | None:
        """The record, or None."""
        return self._store.get(namespace, name)

    def all(self) -> tuple[T, ...]:
        """Every record, in no order."""
        return self._store.all()

    def by_index(self, key: str) -> tuple[T, ...]:
        """The records whose index keys contain `key`."""
        return self._store.by_index(key)

    def subscribe(self, fn: Subscriber[T]) -> None:
        """Call `fn(old, new)` synchronously after each change of the store."""
        self._store.subscribe(fn)

    def upsert(self, obj: Json) -> None:
        """Take the response of a write; ignored when the cache already knows something newer."""
        record = self._record(obj)
        if record is not None and self._namespace in (None, record.namespace):
            self._highest = max(self._highest, int(record.resource_version))
            self._store.put(record)

    def remove(self, namespace: str, name: str, uid: str) -> None:
        """Forget an object known to be gone, unless the name is another object's by now."""
        held = self._store.get(namespace, name)
        if held is not None and held.uid == uid:
            self._store.delete(held)

    async def run(self) -> None:
        """List and watch until cancelled; failures are retried for ever, with backoff."""
        failures = 0
        while True:
            self._progress = False
            try:
                if self._version is None:
                    await self._list()
                await self._watch()
                failed = None
            except Expired:
                logger.info("%s: the watch fell too far behind; listing again", self._what)
                self._version, failed = None, None
            except (ApiError, ValueError, KeyError) as error:
                failed = error
            if self._progress:
                failures = 0
            if failed is not None or not self._progress:
                failures += 1
                if failures % _RELIST_AFTER == 0:
                    self._version = None
                if failed is not None:
                    self._report(failed, failures)
                await asyncio.sleep(_pause(failures))

    async def _list(self) -> None:
        floor = self._highest
        version = 0
        records: list[T] = []
        async for page in self._client.pages(
            self._resource, self._namespace, label_selector=self._selector
        ):
            version = int(page["metadata"]["resourceVersion"])
            trimmed = (self._record(item) for item in page.get("items") or ())
            records += [record for record in trimmed if record is not None]
            page.clear()  # before the next one is read
        if version < floor:
            # A list is never older than what was seen before it, unless etcd was restored.
            logger.warning("%s: the server's history went back; starting afresh", self._what)
            self._store.clear()
            self._highest = 0
        self._store.replace(records, version)
        self._advance(str(version))
        self._synced.set()

    async def _watch(self) -> None:
        assert self._version is not None
        loop = asyncio.get_running_loop()
        started = loop.time()
        events = self._client.watch(
            self._resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._selector,
            # Spread, so that many watches do not all end in the same second.
            seconds=max(1, round(self._watch_seconds * random.uniform(0.8, 1.0))),
            silence=self._silence,
        )
        async with aclosing(events):
            async for kind, obj in events:
                record = self._record(obj) if kind != "BOOKMARK" else None
                if record is not None and kind == "DELETED":
                    self._store.delete(record)
                elif record is not None:
                    self._store.put(record)
                self._advance(obj["metadata"]["resourceVersion"])
        # A watch that stood for a while and was ended by the server is no failure.
        self._progress = self._progress or loop.time() - started > _SOUND_WATCH

    def _record(self, obj: Json) -> T | None:
        try:
            return self._trim(obj)
        except Exception:
            # One object that cannot be read must not keep all others out of the cache.
            meta = obj.get("metadata") or {}
            logger.exception(
                "%s: cannot read %s/%s; it is left out",
                self._what,
                meta.get("namespace"),
                meta.get("name"),
            )
            return None

    def _advance(self, version: str) -> None:
        self._version = version
        self._highest = max(self._highest, int(version))
        self._progress = True

    def _report(self, error: Exception, failures: int) -> None:
        if failures in (1, _RELIST_AFTER) or failures % 20 == 0:
            logger.warning("%s: %s; attempt %d follows", self._what, error, failures + 1)

    @property
    def _what(self) -> str:
        where = f" in {self._namespace}" if self._namespace else ""
        return f"watching {self._resource.plural}{where}"


def _pause(failures: int) -> float:
    ceiling = min(_LONGEST_PAUSE, 0.1 * 2 ** min(failures, 10))
    return random.uniform(ceiling / 2, ceiling)
