"""Gauges made at each scrape from what is known then, so that a deleted object leaves no series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from glowplug.control.objects import Held

_MODEL = ["namespace", "model"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one model looks like now: replicas by tier, requests by state, what it costs."""

    wanted: int
    replicas: Mapping[str, int]
    requests: Mapping[str, float] = field(default_factory=dict)
    dollars_per_hour: float | None = None


class ModelGauges(Collector):
    """The figures of each "namespace/name" that this process decides on."""

    def __init__(self, figures: Mapping[str, Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Make the families of one scrape."""
        wanted = GaugeMetricFamily(
            "glowplug_wanted_replicas", "Replicas decided on.", labels=_MODEL
        )
        replicas = GaugeMetricFamily(
            "glowplug_replicas", "Replicas by what they hold.", labels=[*_MODEL, "tier"]
        )
        requests = GaugeMetricFamily(
            "glowplug_requests",
            "Requests that decisions see: running and waiting in engines, held at gateways.",
            labels=[*_MODEL, "state"],
        )
        dollars = GaugeMetricFamily(
            "glowplug_dollars_per_hour", "What the model's GPUs cost now.", labels=_MODEL
        )
        for key, figures in self._figures.items():
            namespace, _, name = key.partition("/")
            wanted.add_metric([namespace, name], figures.wanted)
            for tier, count in figures.replicas.items():
                replicas.add_metric([namespace, name, tier], count)
            for state, number in figures.requests.items():
                requests.add_metric([namespace, name, state], number)
            if figures.dollars_per_hour is not None:
                dollars.add_metric([namespace, name], figures.dollars_per_hour)
        yield from (wanted, replicas, requests, dollars)


class ConditionGauges(Collector):
    """Every condition of every object of ours as its status tells, 1 each."""

    def __init__(self, objects: Callable[[], Iterable[Held[Any]]]) -> None:
        self._objects = objects

    def collect(self) -> Iterator[Metric]:
        """Make the family of one scrape."""
        family = GaugeMetricFamily(
            "glowplug_condition",
            "1 for the state that each condition of a ModelDeployment, ModelSnapshot or GPUPool "
            "is in.",
            labels=["kind", "namespace", "name", "type", "status", "reason"],
        )
        for held in self._objects():
            for told in conditions_of(held.status).values():
                family.add_metric([held.kind, held.namespace, held.name, *told], 1)
        yield family


def conditions_of(status: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """(type, status, reason) by type; passes over what an older CRD let through."""
    given = status.get("conditions")
    return {
        str(c["type"]): (str(c["type"]), str(c["status"]), str(c.get("reason") or ""))
        for c in (given if isinstance(given, list) else ())
        if isinstance(c, dict) and c.get("type") and c.get("status")
    }
