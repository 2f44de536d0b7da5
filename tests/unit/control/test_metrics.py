"""The operator's metrics as a scrape shows them, and the object's key in every line of its log."""

import logging
from typing import Any

import pytest

from glowplug.control.gauges import Figures
from glowplug.control.logs import Keyed, about
from glowplug.control.metrics import Metrics
from glowplug.control.objects import Held
from glowplug.observe import ColdStart

START = ColdStart("ns/smol", "uid", 3.0, {"restore": 2.0, "load": 1.0}, {}, "cold", 0.0)


def held(status: dict[str, Any], kind: str = "ModelDeployment") -> Held[Any]:
    return Held(kind, "ns", "smol", "uid", "1", 1, False, None, (), status)


def series(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, in the order of the labels' names."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def test_figures_of_a_model_and_none_of_a_deleted_one() -> None:
    metrics = Metrics(list)
    figures = Figures(2, {"hot": 1, "starting": 1}, {"running": 3.0, "held": 4.0}, 2.5)
    metrics.show("ns/smol", figures, promise=20.0)
    metrics.decisions.labels("ns", "smol", "up").inc()
    seen = series(metrics)
    assert seen["glowplug_wanted_replicas", "smol", "ns"] == 2
    assert seen["glowplug_replicas", "smol", "ns", "starting"] == 1
    assert seen["glowplug_requests", "smol", "ns", "held"] == 4
    assert seen["glowplug_dollars_per_hour", "smol", "ns"] == 2.5
    metrics.forget("ns/smol")
    assert not [name for name in series(metrics) if "smol" in name]


@pytest.mark.parametrize(
    ("promise", "verdict"), [(None, "none"), (2.9, "missed"), (3.0, "kept"), (20.0, "kept")]
)
def test_a_cold_start_is_held_against_its_promise(promise: float | None, verdict: str) -> None:
    metrics = Metrics(list)
    metrics.started_cold(START, promise)
    seen = series(metrics)
    assert seen["glowplug_cold_starts_total", "smol", "ns", verdict] == 1
    assert seen["glowplug_cold_start_stage_seconds_sum", "cold", "restore"] == 2
    assert seen["glowplug_cold_start_stage_seconds_sum", "cold", "total"] == 3


def test_a_promise_is_counted_from_zero() -> None:
    metrics = Metrics(list)
    metrics.show("ns/smol", Figures(0, {}), promise=20.0)
    assert series(metrics)["glowplug_cold_starts_total", "smol", "ns", "missed"] == 0
    metrics.show("ns/other", Figures(0, {}), promise=None)
    assert ("glowplug_cold_starts_total", "other", "ns", "missed") not in series(metrics)


def test_conditions_come_from_every_object_and_broken_ones_are_passed_over() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "Starting"}
    broken: list[dict[str, Any]] = [
        {"conditions": "yes"},
        {"conditions": [3, {"type": "Ready"}, ready, ready]},
        {},
    ]
    metrics = Metrics(lambda: [held(status) for status in broken])
    found = [key[1:] for key in series(metrics) if key[0] == "glowplug_condition"]
    assert found == [("ModelDeployment", "smol", "ns", "Starting", "False", "Ready")]


@pytest.mark.parametrize(("leads", "age"), [(True, 42.0), (False, 0.0)])
def test_only_the_leaders_queue_is_old(leads: bool, age: float) -> None:
    metrics = Metrics(list)
    metrics.watch(lambda: 7, lambda: 42.0, lambda: leads)
    seen = series(metrics)
    assert seen["glowplug_queue_age_seconds",] == age
    assert seen["glowplug_leader",] == float(leads)


def test_a_line_logged_inside_carries_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.addFilter(Keyed())
    log = logging.getLogger("glowplug.test")
    with about("ModelDeployment/ns/smol"):
        log.warning("inside")
        log.warning("named", extra={"object": "GPUPool/default"})
    log.warning("outside")
    assert [getattr(record, "object", None) for record in caplog.records] == [
        "ModelDeployment/ns/smol",
        "GPUPool/default",
        None,
    ]
