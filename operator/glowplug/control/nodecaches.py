"""The nodes' caches, where the chart runs them: told of Pods ahead, and who had what."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from glowplug.act.prefetch import Prefetcher
from glowplug.control.model import CacheSettings
from glowplug.kube import ENDPOINTSLICES, Client, PodRecord, WatchCache
from glowplug.observe import NodeCaches, trim_cache_slice


class CachesAhead:
    """Tells caches of Pods; without settings there is none, and every start is cold."""

    def __init__(
        self,
        client: Client,
        session: aiohttp.ClientSession,
        settings: CacheSettings | None,
        pods: WatchCache[PodRecord],
        may_act: Callable[[], bool],
    ) -> None:
        self._slices = None
        self._prefetcher = None
        if settings is None:
            return
        self._slices = WatchCache(
            client,
            ENDPOINTSLICES,
            trim_cache_slice,
            namespace=settings.namespace,
            label_selector=f"kubernetes.io/service-name={settings.service}",
        )
        caches = NodeCaches(self._slices)
        self._prefetcher = Prefetcher(session, settings.key, caches.url, may_act)
        pods.subscribe(self._prefetcher)

    def path_of(self, uid: str) -> str:
        """The start path of a Pod's replica."""
        return self._prefetcher.path_of(uid) if self._prefetcher is not None else "cold"

    def background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What every process runs, by name."""
        return {"node caches": self._slices.run()} if self._slices is not None else {}
