"""Streams from every gateway: who holds requests for which model, at once and without polling."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

import aiohttp
import orjson

from glowplug.kube import WatchCache
from glowplug.observe.demand import STALE_AFTER, Demand, DemandBook, First, MalformedLineError
from glowplug.observe.slices import Endpoint, SliceRecord

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 1.0
_LONGEST_LINE = 2**24


class GatewayDemand:
    """Connects to the gateways in `slices` and keeps their merged demand.

    on_demand(model): more is asked of a model than before; on_first(first): the first
    token after a cold start. Both are called in the event loop and must return quickly.
    """

    def __init__(
        self,
        slices: WatchCache[SliceRecord],
        session: aiohttp.ClientSession,
        *,
        on_demand: Callable[[str], None],
        on_first: Callable[[First], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._slices = slices
        self._session = session
        self._on_demand = on_demand
        self._on_first = on_first
        self._clock = clock
        self._book = DemandBook()
        self._streams: dict[str, tuple[Endpoint, asyncio.Task[None]]] = {}
        self._changed = asyncio.Event()
        self._known = False

    def snapshot(self, model: str, now: float) -> Demand:
        """The demand for "namespace/name"; stale until the gateways are known."""
        demand = self._book.snapshot(model, now)
        return demand if self._known else Demand(stale=True)

    def models(self) -> frozenset[str]:
        """Every model that any gateway has spoken of."""
        return self._book.models()

    async def run(self) -> None:
        """Follow the EndpointSlices until cancelled."""
        self._slices.subscribe(lambda old, new: self._changed.set())
        await self._slices.synced()
        from_start = True
        try:
            while True:
                self._changed.clear()
                self._follow(from_start)
                self._known, from_start = True, False
                await self._changed.wait()
        finally:
            for _, task in self._streams.values():
                task.cancel()

    def _follow(self, from_start: bool) -> None:
        wanted = {e.key: e for record in self._slices.all() for e in record.endpoints}
        for key, (endpoint, task) in list(self._streams.items()):
            if key not in wanted or wanted[key].url != endpoint.url:
                task.cancel()
                del self._streams[key]
                if key not in wanted:
                    self._book.gone(key)
        for key, endpoint in wanted.items():
            self._book.found(key, self._clock(), serving=endpoint.serving, from_start=from_start)
            if key not in self._streams:
                task = asyncio.create_task(self._stream(endpoint), name=f"demand {endpoint.url}")
                self._streams[key] = (endpoint, task)

    async def _stream(self, endpoint: Endpoint) -> None:
        failures = 0
        while True:
            try:
                heard = await self._read(endpoint)
                reason: object = "the stream ended"
            except _CutError as cut:
                heard, reason = cut.heard, cut
            except Exception:
                logger.exception("gateway %s: a line could not be taken", endpoint.url)
                heard, reason = False, "an error of ours"
            failures = 0 if heard else failures + 1
            if failures in (0, 1):
                logger.warning("gateway %s: %s; connecting again", endpoint.url, reason)
            ceiling = min(_LONGEST_PAUSE, 0.05 * 2 ** min(failures, 5))
            await asyncio.sleep(random.uniform(ceiling / 2, ceiling))

    async def _read(self, endpoint: Endpoint) -> bool:
        """Read one stream to its end; returns or raises with whether a line was taken."""
        heard = False
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=STALE_AFTER)
        try:
            async with self._session.get(f"{endpoint.url}/demand", timeout=timeout) as response:
                response.raise_for_status()
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in filter(None, lines):
                        self._take(endpoint, line, full=not heard)
                        heard = True
                    if len(rest) > _LONGEST_LINE:
                        raise MalformedLineError("a line has no end")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _CutError(heard, str(error) or type(error).__name__) from error
        return heard

    def _take(self, endpoint: Endpoint, line: bytes, *, full: bool) -> None:
        news = self._book.line(endpoint.key, _object(line), self._clock(), full=full)
        for model in news.woken:
            self._on_demand(model)
        for first in news.firsts:
            self._on_first(first)


class _CutError(Exception):
    def __init__(self, heard: bool, reason: str) -> None:
        super().__init__(reason)
        self.heard = heard


def _object(line: bytes) -> dict[str, object]:
    decoded = orjson.loads(line)
    if not isinstance(decoded, dict):
        raise MalformedLineError("a demand line is not an object")
    return decoded
