"""The gateway's Prometheus metrics, by namespace and model as the operator's are.

docs/metrics.md describes each one; a test compares it with what is exposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from glowplug.gateway.traffic import ModelTraffic

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600)
_MODEL = ["namespace", "model"]
UNKNOWN = ""  # the model of requests that name none served here: clients choose no labels


class Metrics:
    """Counters and histograms in a registry of their own; a model is "namespace/name"."""

    def __init__(self, traffics: Callable[[], Iterable[ModelTraffic]]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(_Gauges(traffics))
        Gauge(
            "glowplug_build_info",
            "1, with the version that runs.",
            ["component", "version"],
            registry=self.registry,
        ).labels("gateway", version("glowplug")).set(1)
        self._requests = Counter(
            "glowplug_gateway_requests_total",
            "Requests answered; code 499: the client left first.",
            [*_MODEL, "code"],
            registry=self.registry,
        )
        self._retries = Counter(
            "glowplug_gateway_retries_total",
            "Requests sent again because their engine failed before its first byte.",
            [*_MODEL, "reason"],
            registry=self.registry,
        )
        self._hold = Histogram(
            "glowplug_gateway_hold_seconds",
            "Time a request waited for a replica.",
            _MODEL,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._ttft = Histogram(
            "glowplug_gateway_time_to_first_token_seconds",
            "From a request's first byte to the first content sent back, holding included.",
            _MODEL,
            buckets=_SECONDS,
            registry=self.registry,
        )

    def answered(self, model: str, code: int) -> None:
        """Count one request that is over."""
        self._requests.labels(*_names(model), str(code)).inc()

    def retried(self, model: str, reason: str) -> None:
        """Count one request that goes to another engine."""
        self._retries.labels(*_names(model), reason).inc()

    def held(self, model: str, seconds: float) -> None:
        """Observe for how long one request was held."""
        self._hold.labels(*_names(model)).observe(seconds)

    def first_token(self, model: str, seconds: float) -> None:
        """Observe when the first content of one answer went out."""
        self._ttft.labels(*_names(model)).observe(seconds)

    def forget(self, model: str) -> None:
        """Drop a deleted model's series."""
        labels = dict(zip(_MODEL, _names(model), strict=True))
        for metric in (self._requests, self._retries, self._hold, self._ttft):
            metric.remove_by_labels(labels)


def _names(model: str) -> tuple[str, str]:
    namespace, _, name = model.partition("/")
    return namespace, name


class _Gauges(Collector):
    """Read when scraped, so that requests pay nothing for them."""

    def __init__(self, traffics: Callable[[], Iterable[ModelTraffic]]) -> None:
        self._traffics = traffics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        def gauge(name: str, told: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"glowplug_gateway_{name}", told, labels=_MODEL)

        held = gauge("held_requests", "Requests waiting for a replica.")
        longest = gauge("longest_held_seconds", "For how long the oldest of them has waited.")
        in_flight = gauge("inflight_requests", "Requests at engines.")
        usable = gauge("usable_replicas", "Replicas that take requests.")
        for traffic in self._traffics():
            names = _names(traffic.key)
            held.add_metric(names, traffic.held)
            longest.add_metric(names, traffic.longest_held)
            in_flight.add_metric(names, traffic.in_flight)
            usable.add_metric(names, sum(e.usable for e in traffic.engines.values()))
        yield from (held, longest, in_flight, usable)
