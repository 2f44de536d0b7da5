"""Asks Prometheus for the engines' signals of all models at once, off the event loop.

A Prometheus that fails is asked less and less often; what it last said grows old by itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from glowplug.api import dialect as dialect_of
from glowplug.observe.engines import (
    EngineSignals,
    Scrape,
    Signal,
    Values,
    by_model,
    differs,
    query,
    read,
    series_of,
    signals_of,
)

logger = logging.getLogger(__name__)

_OPEN_AFTER = 3
_LONGEST_PAUSE = 30.0
_FAILURES = (
    requests.RequestException,
    PrometheusApiClientException,
    TimeoutError,
    ValueError,
    KeyError,
    TypeError,
)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether Prometheus answers, and if not, a sentence that says what to do."""

    ok: bool
    why: str


class PrometheusSignals:
    """Polls one Prometheus for the dialects in use; `signals()` reads what it last said.

    on_change(model): "namespace/name" has other numbers than at the last poll.
    budget: seconds after which a sample is too old to decide by (3 scrapes of 5 s by default).
    """

    def __init__(
        self,
        url: str,
        dialects: Callable[[], Iterable[str]],
        *,
        on_change: Callable[[str], None] = lambda model: None,
        interval: float = 2.0,
        budget: float = 15.0,
        timeout: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url.rstrip("/")
        self._dialects = dialects
        self._on_change = on_change
        self._interval = interval
        self._budget = budget
        self._timeout = timeout
        self._clock = clock
        self._connection = PrometheusConnect(
            url=self._url, retry=Retry(total=0), timeout=self._timeout
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prometheus")
        self._asking: Future[Scrape] | None = None
        self._scrapes: dict[str, Scrape] = {}  # by model
        self._failures = 0
        self.health = Health(False, f"Prometheus at {self._url} has not answered yet")

    def signals(self, model: str, now: float) -> EngineSignals | None:
        """The signals of "namespace/model"; None when there is no fresh sample of it."""
        known = self._scrapes.get(model)
        return signals_of(known, model, now, self._budget) if known is not None else None

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            while True:
                await self.poll()
                await asyncio.sleep(self._pause())
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._connection.close()

    async def poll(self) -> None:
        """Ask once; a failure is noted in `health` and changes nothing else."""
        try:
            scrape = await self._ask()
        except _FAILURES as error:
            self._failures += 1
            what = str(error) or type(error).__name__
            self.health = Health(
                False,
                f"Prometheus at {self._url} does not answer ({what[:200]}); the count is held. "
                "Check the operator's --prometheus-url and that Prometheus runs.",
            )
            if self._failures in (1, _OPEN_AFTER):
                logger.warning("%s", self.health.why)
        else:
            if self._failures:
                logger.info("Prometheus at %s answers again", self._url)
            self._failures = 0
            self.health = Health(True, f"Prometheus at {self._url} answers")
            self._take(by_model(scrape))

    def _take(self, scrapes: dict[str, Scrape]) -> None:
        known, self._scrapes = self._scrapes, scrapes
        for model, scrape in scrapes.items():
            if differs(known.get(model), scrape):
                self._on_change(model)

    async def _ask(self) -> Scrape:
        if self._asking is not None and not self._asking.done():
            raise TimeoutError("the previous question is still open")
        self._asking = self._thread.submit(self._query_all, tuple(sorted(self._dialects())))
        # Each query has its own timeout; this one is for an answer that trickles in.
        async with asyncio.timeout(5 * self._timeout):
            return await asyncio.wrap_future(self._asking)

    def _query_all(self, names: tuple[str, ...]) -> Scrape:
        at = self._clock()
        return Scrape(at, {name: self._query_dialect(name) for name in names})

    def _query_dialect(self, name: str) -> dict[Signal, Values]:
        series = series_of(dialect_of(name))
        # All series of a Pod come from one scrape, so one of them tells the age; asked first, so
        # that a Pod scraped between two questions is not taken for one that lacks a signal.
        age = self._query("age", next(iter(series.values()), ()))
        found = {signal: self._query(signal, names) for signal, names in series.items()}
        return {**found, "age": age}

    def _query(self, signal: Signal, alternatives: tuple[str, ...]) -> Values:
        """Ask for each alternative by itself; for a Pod with several the first one counts."""
        values: Values = {}
        for series in alternatives:
            answer = self._connection.custom_query(query(signal, series))
            values = read(answer) | values
        return values

    def _pause(self) -> float:
        if self._failures < _OPEN_AFTER:
            return self._interval
        return min(_LONGEST_PAUSE, self._interval * 2.0 ** (self._failures - _OPEN_AFTER + 1))
