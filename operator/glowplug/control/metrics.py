"""The operator's own metrics, in a registry of their own: one per process, none global.

docs/metrics.md describes each one; a test compares it with what is exposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)

from glowplug.control.gauges import ConditionGauges, Figures, ModelGauges
from glowplug.control.objects import Held
from glowplug.observe import ColdStart

_STAGE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
_RECONCILE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WAIT_BUCKETS = (0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """All counters and histograms; `figures`, by "namespace/name", is read at each scrape."""

    def __init__(self, objects: Callable[[], Iterable[Held[Any]]]) -> None:
        self.registry = CollectorRegistry()
        self.figures: dict[str, Figures] = {}
        ProcessCollector(registry=self.registry)
        self.registry.register(ModelGauges(self.figures))
        self.registry.register(ConditionGauges(objects))
        Gauge(
            "glowplug_build_info",
            "1, with the version that runs.",
            ["component", "version"],
            registry=self.registry,
        ).labels("operator", version("glowplug")).set(1)
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
        self.queue_wait = Histogram(
            "glowplug_queue_wait_seconds",
            "For how long a key had been due when its reconcile began.",
            buckets=_WAIT_BUCKETS,
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
        self._stages = Histogram(
            "glowplug_cold_start_stage_seconds",
            "Cold starts by stage; the stage `total` is from the request to its first token.",
            ["path", "stage"],
            buckets=_STAGE_BUCKETS,
            registry=self.registry,
        )
        self._cold_starts = Counter(
            "glowplug_cold_starts_total",
            "Cold starts by whether the promise (spec.warmth.coldStart) was kept, missed or none.",
            ["namespace", "model", "promise"],
            registry=self.registry,
        )
        self._depth = Gauge(
            "glowplug_queue_depth", "Keys that are due, of the leader.", registry=self.registry
        )
        self._age = Gauge(
            "glowplug_queue_age_seconds",
            "For how long the key that waits longest has been due, of the leader.",
            registry=self.registry,
        )
        self._leader = Gauge(
            "glowplug_leader", "1 while this process holds the lease.", registry=self.registry
        )

    def watch(
        self, depth: Callable[[], float], age: Callable[[], float], leads: Callable[[], bool]
    ) -> None:
        """Read queue and lease at each scrape; a standby's queue is nobody's to work off."""
        self._depth.set_function(lambda: depth() if leads() else 0)
        self._age.set_function(lambda: age() if leads() else 0)
        self._leader.set_function(leads)

    def show(self, model: str, figures: Figures, promise: float | None) -> None:
        """Expose what "namespace/name" looks like now; `promise` as for `started_cold`."""
        if model not in self.figures and promise is not None:
            # A counter that appears at 1 has not increased, as Prometheus sees it.
            for kept in ("kept", "missed"):
                self._cold_starts.labels(*_names(model), kept)
        self.figures[model] = figures

    def wrote(self, verb: str, resource: str, outcome: str) -> None:
        """Count one write."""
        self.writes.labels(verb, resource, outcome).inc()

    def started_cold(self, start: ColdStart, promise: float | None) -> None:
        """Count one cold start; `promise` is what was promised, in seconds."""
        for stage, seconds in {**start.stages, "total": start.total}.items():
            self._stages.labels(start.path, stage).observe(seconds)
        kept = "none" if promise is None else "kept" if start.total <= promise else "missed"
        self._cold_starts.labels(*_names(start.model), kept).inc()

    def forget(self, model: str) -> None:
        """Drop the series of a deleted "namespace/name"."""
        self.figures.pop(model, None)
        namespace, name = _names(model)
        for counter in (self.decisions, self._cold_starts):
            counter.remove_by_labels({"namespace": namespace, "model": name})


def _names(model: str) -> tuple[str, str]:
    namespace, _, name = model.partition("/")
    return namespace, name
