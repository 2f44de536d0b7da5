"""Engine metrics as Prometheus tells them: queries by dialect, answers to numbers. Pure.

Every dialect and every alternative is asked by itself: `a or b` in PromQL keeps only `a` where the
labels are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from glowplug.api import Dialect

PodKey = tuple[str, str]
"""("namespace/model", Pod name)."""

Signal = Literal["waiting", "running", "kv_usage", "age"]
Values = dict[PodKey, float | None]
"""One signal by Pod; None where the series is there but its number is not to be used."""

_BY = "(namespace, glowplug_model, pod)"


@dataclass(frozen=True, slots=True)
class EngineSignals:
    """One model's engines now; None = no such signal, or not to be trusted.

    waiting, running: requests, summed over `pods`; kv_usage: 0-1, the mean over them; at: when the
    oldest sample was scraped (s since the epoch); pods: whose samples are fresh; lacking: signals
    that the dialect has and that cannot be trusted now.
    """

    waiting: float | None
    running: float | None
    kv_usage: float | None
    at: float
    pods: frozenset[str]
    lacking: frozenset[Signal] = frozenset()


@dataclass(frozen=True, slots=True)
class Scrape:
    """All answers of one poll, for every model; `at` is when they were asked for."""

    at: float
    signals: Mapping[str, Mapping[Signal, Values]] = field(default_factory=dict)
    """By dialect, the signals that the dialect has."""


def series_of(dialect: Dialect) -> dict[Signal, tuple[str, ...]]:
    """The alternatives for each signal the dialect has."""
    every: dict[Signal, tuple[str, ...]] = {
        "waiting": (dialect.waiting,) if dialect.waiting else (),
        "running": (dialect.running,) if dialect.running else (),
        "kv_usage": tuple(dialect.kv_usage),
    }
    return {signal: series for signal, series in every.items() if series}


def query(signal: Signal, series: str) -> str:
    """PromQL for one signal of all models; `age` is seconds since the sample was scraped."""
    if signal == "age":
        return f"max by {_BY} (time() - timestamp({series}))"
    # A Pod may expose one series per rank: requests add up, cache usage is the fullest's.
    return f"{'max' if signal == 'kv_usage' else 'sum'} by {_BY} ({series})"


def read(result: Iterable[Mapping[str, Any]]) -> Values:
    """An instant vector as the query API returns it; NaN, infinite and negative become None."""
    values: Values = {}
    for sample in result:
        labels = sample["metric"]
        if not all(labels.get(name) for name in ("namespace", "glowplug_model", "pod")):
            continue  # not a target that the operator named
        number = float(sample["value"][1])
        key = (f"{labels['namespace']}/{labels['glowplug_model']}", labels["pod"])
        values[key] = number if math.isfinite(number) and number >= 0 else None
    return values


def by_model(scrape: Scrape) -> dict[str, Scrape]:
    """The scrape of each model by itself."""
    parts: dict[str, dict[str, dict[Signal, Values]]] = {}
    for dialect, signals in scrape.signals.items():
        for signal, values in signals.items():
            for pod, value in values.items():
                of_dialect = parts.setdefault(pod[0], {}).setdefault(dialect, {})
                of_dialect.setdefault(signal, {})[pod] = value
    empty: dict[str, dict[Signal, Values]] = {
        dialect: {signal: {} for signal in signals} for dialect, signals in scrape.signals.items()
    }
    return {
        model: Scrape(scrape.at, {d: empty[d] | found for d, found in dialects.items()})
        for model, dialects in parts.items()
    }


def differs(one: Scrape | None, other: Scrape) -> bool:
    """Whether two scrapes of a model tell different things, their age left aside."""
    return one is None or _told(one) != _told(other)


def _told(scrape: Scrape) -> dict[str, dict[Signal, Values]]:
    return {
        dialect: {signal: values for signal, values in signals.items() if signal != "age"}
        for dialect, signals in scrape.signals.items()
    }


def signals_of(scrape: Scrape, model: str, now: float, budget: float) -> EngineSignals | None:
    """One model's signals from the fresh Pods of a scrape; None without a fresh Pod.

    A signal that one fresh Pod lacks is None for the whole model: a sum with a hole in it would
    lower the count.
    """
    for signals in scrape.signals.values():
        ages = {pod: age for (name, pod), age in signals["age"].items() if name == model}
        since = now - scrape.at
        fresh = {pod: age for pod, age in ages.items() if age is not None and age + since <= budget}
        if fresh:
            totals = {signal: _total(values, model, fresh) for signal, values in signals.items()}
            cache = totals.get("kv_usage")
            return EngineSignals(
                waiting=totals.get("waiting"),
                running=totals.get("running"),
                kv_usage=None if cache is None else cache / len(fresh),
                at=scrape.at - max(fresh.values()),
                pods=frozenset(fresh),
                lacking=frozenset(signal for signal, total in totals.items() if total is None),
            )
    return None


def _total(values: Values, model: str, pods: Iterable[str]) -> float | None:
    total = 0.0
    for pod in pods:
        value = values.get((model, pod))
        if value is None:
            return None
        total += value
    return total
