"""The gateway's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from glowplug.gateway.traffic import ModelTraffic

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
UNKNOWN = ""  # the model label of requests that name none served here: clients choose no labels


class Metrics:
    """Counters and histograms by model, in a registry of their own."""

    def __init__(self, traffics: Callable[[], Iterable[ModelTraffic]]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Gauges(traffics))
        self.requests = Counter(
            "glowplug_gateway_requests",
            "Requests answered; code 499: the client left first.",
            ["model", "code"],
            registry=self.registry,
        )
        self.retries = Counter(
            "glowplug_gateway_retries",
            "Requests sent again because their engine failed before its first byte.",
            ["model", "reason"],
            registry=self.registry,
        )
        self.hold_seconds = Histogram(
            "glowplug_gateway_hold_seconds",
            "Time a request waited for a replica.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.ttft_seconds = Histogram(
            "glowplug_gateway_time_to_first_token_seconds",
            "From a request's first byte to the first content sent back, holding included.",
            ["model"],
            buckets=_SECONDS,
            registry=self.registry,
        )

    def forget(self, model: str) -> None:
        """Drop a deleted model's series."""
        for metric in (self.requests, self.retries, self.hold_seconds, self.ttft_seconds):
            metric.remove_by_labels({"model": model})


class _Gauges(Collector):
    """Read when scraped, so that requests pay nothing for them."""

    def __init__(self, traffics: Callable[[], Iterable[ModelTraffic]]) -> None:
        self._traffics = traffics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        held = GaugeMetricFamily(
            "glowplug_gateway_held", "Requests waiting for a replica.", labels=["model"]
        )
        in_flight = GaugeMetricFamily(
            "glowplug_gateway_inflight", "Requests at engines.", labels=["model"]
        )
        usable = GaugeMetricFamily(
            "glowplug_gateway_usable_replicas", "Replicas that take requests.", labels=["model"]
        )
        for traffic in self._traffics():
            held.add_metric([traffic.key], traffic.held)
            in_flight.add_metric([traffic.key], traffic.in_flight)
            usable.add_metric([traffic.key], sum(e.usable for e in traffic.engines.values()))
        yield from (held, in_flight, usable)
