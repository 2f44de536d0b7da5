"""States and numbers in words."""

from datetime import UTC, datetime

import pytest

from glowplug.cli import words
from glowplug.cli.view import model

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def make(status: dict, **spec: object):
    body = {"metadata": {"namespace": "demo", "name": "smollm2"}, "spec": spec, "status": status}
    return model(body)


def ready(status: str, reason: str = "") -> dict:
    return {"conditions": [{"type": "Ready", "status": status, "reason": reason}]}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, "not seen yet"),
        (ready("True", "Serving"), "yes"),
        (ready("True", "ScaledToZero"), "on request"),
        (ready("False", "Starting"), "no: Starting"),
        (ready("Unknown"), "no"),
        ({"conditions": [{"type": "TemplateValid", "status": "True"}]}, "not seen yet"),
    ],
)
def test_serving(status: dict, said: str) -> None:
    assert words.serving(make(status)) == said


@pytest.mark.parametrize(
    ("status", "spec", "said"),
    [
        ({}, {}, "0/0"),
        ({"replicas": 3, "readyReplicas": 2, "decision": {"desired": 3}}, {}, "2/3"),
        ({"replicas": 1, "readyReplicas": 1, "decision": {"desired": 4}}, {}, "1/1 -> 4"),
        ({"replicas": 2, "decision": {"desired": 0}}, {}, "0/2 -> 0"),
        ({"replicas": 2, "readyReplicas": 2}, {"replicas": 2}, "2/2 (pinned at 2)"),
        ({"decision": {"desired": 0}}, {"replicas": 0}, "0/0 (pinned at 0)"),
    ],
)
def test_replicas(status: dict, spec: dict, said: str) -> None:
    assert words.replicas(make(status, **spec)) == said


@pytest.mark.parametrize(
    ("tiers", "said"),
    [
        (None, "none"),
        ({"hot": 0, "asleep": 0}, "none"),
        ({"hot": 2, "asleep": 0, "starting": 1}, "2 hot, 1 starting"),
    ],
)
def test_tiers(tiers: dict | None, said: str) -> None:
    assert words.tiers(make({"tiers": tiers})) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (0, "0.00 s"), (0.456, "0.46 s"), (9.994, "9.99 s"), (61.25, "61.2 s")],
)
def test_seconds(value: float | None, said: str) -> None:
    assert words.seconds(value) == said


@pytest.mark.parametrize(
    ("stamp", "said"),
    [
        (None, ""),
        ("2026-11-23T12:00:00Z", "0 s ago"),
        ("2026-11-23T11:59:18Z", "42 s ago"),
        ("2026-11-23T11:57:00Z", "3 min ago"),
        ("2026-11-23T06:00:00+00:00", "6 h ago"),
        ("2026-11-20T12:00:00", "3 d ago"),
        ("2026-11-23T12:00:09Z", "0 s ago"),  # the writer's clock is ahead of ours
        ("noon", "at noon"),
    ],
)
def test_ago(stamp: str | None, said: str) -> None:
    assert words.ago(stamp, NOW) == said
