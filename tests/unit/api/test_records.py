"""Replica records and conditions."""

import json
from dataclasses import dataclass

import pytest

from glowplug.api import condition, meta, replicas_of, set_condition

ENTRY = {
    "model": "smollm2",
    "process": 0,
    "port": 8000,
    "launcherPort": 9410,
    "healthPath": "/healthz",
    "metricsPath": "/metrics",
    "metrics": "vllm",
}


@dataclass(frozen=True)
class Pod:
    annotations: dict[str, str]
    labels: dict[str, str]
    deleting: bool = False
    uid: str = "u1"
    namespace: str = "ns"
    name: str = "smollm2-0a1b2c3d-0"
    ip: str | None = "198.18.0.9"


def read(annotation: str, labels: dict[str, str] | None = None, deleting: bool = False):
    labels = {meta.LABEL_REVISION: "0a1b2c3d"} | (labels or {})
    return replicas_of(Pod({meta.ANNOTATION_REPLICAS: annotation}, labels, deleting))


def test_a_pod_lists_its_engine_processes():
    second = {**ENTRY, "process": 1, "port": 8001, "launcherPort": None, "metrics": None}

    first, other = read(json.dumps([ENTRY, second]))

    assert first.key == ("u1", 0, 8000)
    assert (first.model, first.revision, first.ip) == ("smollm2", "0a1b2c3d", "198.18.0.9")
    assert (first.launcher_port, first.health_path, first.draining) == (9410, "/healthz", False)
    assert (other.process, other.launcher_port, other.metrics) == (1, None, None)


@pytest.mark.parametrize(
    ("labels", "deleting", "draining"),
    [
        ({meta.LABEL_STATE: meta.STATE_ACTIVE}, False, False),
        ({meta.LABEL_STATE: meta.STATE_DRAINING}, False, True),
        ({meta.LABEL_STATE: meta.STATE_ACTIVE}, True, True),
    ],
)
def test_draining_is_the_label_or_the_deletion(labels, deleting, draining):
    assert read(json.dumps([ENTRY]), labels, deleting)[0].draining is draining


@pytest.mark.parametrize(
    ("ip", "written"), [("198.18.0.9", "198.18.0.9:8000"), ("fd00::9", "[fd00::9]:8000")]
)
def test_an_address_is_written_as_urls_want_it(ip: str, written: str):
    (replica,) = replicas_of(Pod({meta.ANNOTATION_REPLICAS: json.dumps([ENTRY])}, {}, ip=ip))
    assert replica.authority(replica.port) == written


@pytest.mark.parametrize("annotation", ["", "{", "3", "[3]", '[{"model": "a"}]', '{"model": 1}'])
def test_a_broken_annotation_lists_nothing(annotation):
    assert read(annotation) == ()


def test_a_condition_keeps_its_transition_time_while_its_status_stays():
    start = set_condition([], "Ready", "False", "Starting", "It starts.", 0, 1)
    later = set_condition(start, "Ready", "False", "Loading", "It loads.", 60, 2)
    done = set_condition(later, "Ready", "True", "Serving", "It serves.", 90, 2)

    assert [c[0]["lastTransitionTime"] for c in (start, later, done)] == [
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:01:30Z",
    ]
    assert later[0]["reason"] == "Loading"
    assert start[0]["reason"] == "Starting", "the input is left as it was"
    assert condition(done, "Ready") == done[0]
    assert condition(done, "Other") is None


def test_other_conditions_and_their_order_stay():
    conditions = set_condition([], "A", "True", "Fine", "", 0, 1)
    conditions = set_condition(conditions, "B", "True", "Fine", "", 0, 1)

    changed = set_condition(conditions, "A", "False", "Broken", "", 1, 1)

    assert [c["type"] for c in changed] == ["A", "B"]
    assert changed[1] == conditions[1]
