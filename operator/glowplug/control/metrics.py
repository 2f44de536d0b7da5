"""The operator's own metrics, in a registry of their own: one per process, none global."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_STAGE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
_RECONCILE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one model looks like now: wanted replicas, and replicas by state."""

    wanted: int
    replicas: Mapping[str, int]


class Metrics:
    """All counters and histograms; `figures` is read at each scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.figures: dict[str, Figures] = {}
        self.reconcile = Histogram(
            "glowplug_reconcile_seconds",
            "Time of one reconcile.",
            ["kind"],
            buckets=_RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.failures = Counter(
            "glowplug_reconcile_failures_total",
            "Reconciles that raised an error and are tried again.",
            ["kind"],
            registry=self.registry,
        )
        self.writes = Counter(
            "glowplug_api_writes_total",
            "Writes to the API server by verb, resource and outcome (ok, or its reason).",
            ["verb", "resource", "outcome"],
            registry=self.registry,
        )
        self.decisions = Counter(
            "glowplug_decisions_total",
            "Decisions that changed the wanted count.",
            ["namespace", "model", "direction"],
            registry=self.registry,
        )
        self.cold_starts = Histogram(
            "glowplug_cold_start_stage_seconds",
            "Cold starts by stage; the stage `total` is from the request to its first token.",
            ["path", "stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self._depth = Gauge("glowplug_queue_depth", "Keys that are due.", registry=self.registry)
        self._age = Gauge(
            "glowplug_queue_age_seconds",
            "For how long the key that waits longest has been due.",
            registry=self.registry,
        )
        self._leader = Gauge(
            "glowplug_leader", "1 while this process holds the lease.", registry=self.registry
        )
        self.registry.register(_Models(self.figures))

    def watch_queue(self, depth: Callable[[], float], age: Callable[[], float]) -> None:
        """Read the queue at each scrape."""
        self._depth.set_function(depth)
        self._age.set_function(age)

    def watch_lease(self, held: Callable[[], bool]) -> None:
        """Read the lease at each scrape."""
        self._leader.set_function(held)

    def wrote(self, verb: str, resource: str, outcome: str) -> None:
        """Count one write."""
        self.writes.labels(verb, resource, outcome).inc()

    def forget(self, model: str) -> None:
        """Drop the series of a deleted "namespace/name"."""
        self.figures.pop(model, None)
        namespace, _, name = model.partition("/")
        for direction in ("up", "down"):
            try:
                self.decisions.remove(namespace, name, direction)
            except KeyError:
                continue


class _Models(Collector):
    """Per-model gauges, made at each scrape, so that deleted models leave no series."""

    def __init__(self, figures: Mapping[str, Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        labels = ["namespace", "model"]
        wanted = GaugeMetricFamily(
            "glowplug_wanted_replicas", "Replicas decided on.", labels=labels
        )
        replicas = GaugeMetricFamily(
            "glowplug_replicas", "Replicas by state.", labels=[*labels, "state"]
        )
        for key, figures in self._figures.items():
            namespace, _, name = key.partition("/")
            wanted.add_metric([namespace, name], figures.wanted)
            for state, count in figures.replicas.items():
                replicas.add_metric([namespace, name, state], count)
        yield wanted
        yield replicas
