"""Has a node's cache bring a snapshot as soon as its Pod is scheduled there: a help, never needed.

The image is pulled and the sandbox made meanwhile. The cache's answer also tells whether the node
had the snapshot already, which makes a start `cached`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import aiohttp
from yarl import URL

from glowplug.act.manifest import ANNOTATION_SNAPSHOT
from glowplug.kube import PodRecord
from glowplug_snapshotter.cache.auth import Key

log = logging.getLogger(__name__)

_PATIENCE = aiohttp.ClientTimeout(total=10, sock_connect=2)


class Prefetcher:
    """A subscriber of the Pod cache. `url_of`: a node's cache; `may_act`: whether it leads."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        key: Key,
        url_of: Callable[[str], str | None],
        may_act: Callable[[], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._key = key
        self._url_of = url_of
        self._may_act = may_act
        self._clock = clock
        self._asking: set[asyncio.Task[None]] = set()
        self._had: set[str] = set()  # uids of Pods

    def __call__(self, old: PodRecord | None, new: PodRecord | None) -> None:
        """Note that a Pod changed."""
        if new is None:
            self._had.discard(old.uid if old is not None else "")
            return
        digest = new.annotations.get(ANNOTATION_SNAPSHOT)
        just_bound = new.node is not None and (old is None or old.node is None)
        if digest is None or not just_bound or new.sandbox_ready or not self._may_act():
            return
        task = asyncio.create_task(self._ask(new, digest), name=f"prefetch {new.name}")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def path_of(self, uid: str) -> str:
        """The start path of a Pod's replica: `cached` where its node had the snapshot."""
        return "cached" if uid in self._had else "cold"

    async def _ask(self, pod: PodRecord, digest: str) -> None:
        url = self._url_of(pod.node or "")
        if url is None:
            return
        target = f"/prefetch/{digest.removeprefix('blake3:')}"
        signed = URL(url + self._key.sign("POST", target, self._clock()), encoded=True)
        try:
            async with self._session.post(signed, timeout=_PATIENCE) as response:
                response.raise_for_status()
                said = await response.json()
            if said["here"] == said["total"]:
                self._had.add(pod.uid)
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError) as error:
            # The signed address is no word for a log.
            why = getattr(error, "status", None) or type(error).__name__
            log.warning("the cache on %s was not told of %s: %s", pod.node, pod.name, why)
