"""The status of a model as tables: what was seen and decided, and what the user reads."""

import json
from dataclasses import replace
from typing import Any

import pytest

from glowplug.act import conditions
from glowplug.act.conditions import Verdict
from glowplug.act.containers import Placement, Recipe
from glowplug.act.manifest import revision_of
from glowplug.act.plan import Fleet
from glowplug.act.troubles import launcher_trouble
from glowplug.act.weights import weights_of
from glowplug.api import ModelDeployment, condition, meta, parse, resolve_engine
from glowplug.control.report import (
    Decided,
    Pass,
    cold_start_news,
    find_troubles,
    news,
    snapshot_verdict,
    status_of,
)
from glowplug.control.server import targets
from glowplug.kube import ContainerRecord, PodRecord
from glowplug.observe import ColdStart, ColdStartHistory

POD = PodRecord(
    uid="u0",
    namespace="ns",
    name="m-1-0",
    resource_version="1",
    labels={},
    annotations={},
    owner_uids=("u",),
    node="n",
    ip="198.18.0.7",
    phase="Running",
    created=0.0,
    deleting=False,
    scheduled=True,
    unschedulable=None,
    sandbox_ready=True,
    ready=True,
    containers=(),
    init_containers=(),
)
STARTING = replace(POD, uid="u1", name="m-1-1", ready=False)
HOMELESS = replace(STARTING, uid="u2", scheduled=False, node=None, unschedulable="no GPU.")


def recipe(**model: Any) -> Recipe:
    deployment = parse(
        ModelDeployment,
        {
            "metadata": {"name": "m", "namespace": "ns", "uid": "u"},
            "spec": {"model": {"source": "s3://a/b", **model}},
        },
    )
    engine = resolve_engine(deployment)
    return Recipe(
        deployment=deployment,
        engine=engine,
        revision=revision_of(deployment, engine),
        weights=weights_of(deployment, None, None),
        placement=Placement(),
        snapshotter_image="s:1",
    )


def done(fleet: Fleet, wanted: int, **changes: Any) -> Pass:
    made = recipe()
    base = Pass(
        before={},
        generation=3,
        recipe=made,
        fleet=fleet,
        decided=Decided(wanted, 0, "because", "needed"),
        refused=None,
        failed_rungs={},
        template_error=None,
        metrics=conditions.metrics(True, "fine"),
        snapshot=snapshot_verdict(made, None, store=False),
        dollars_per_hour=None,
        history=ColdStartHistory(),
        troubles=(),
        now=1_800_000_000.0,
    )
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("fleet", "wanted", "changes", "expected"),
    [
        (Fleet(), 0, {}, ("True", "ScaledToZero")),
        (Fleet(), 1, {}, ("False", "Starting")),
        (Fleet(current=(STARTING,)), 1, {}, ("False", "Starting")),
        (Fleet(current=(POD, STARTING)), 2, {}, ("True", "Serving")),
        (Fleet(outdated=(POD,)), 1, {}, ("True", "Serving")),
        (Fleet(current=(HOMELESS,)), 1, {}, ("False", "Unschedulable")),
        (Fleet(), 0, {"template_error": "no"}, ("False", "TemplateInvalid")),
        (Fleet(current=(POD,)), 1, {"template_error": "no"}, ("True", "Serving")),
        (
            Fleet(current=(STARTING,)),
            1,
            {"troubles": (launcher_trouble(STARTING, "the model is not there", "start"),)},
            ("False", "EngineFailed"),
        ),
        (
            Fleet(),
            1,
            {"refused": Verdict("CapacityAvailable", "False", "QuotaExceeded", "few")},
            ("False", "QuotaExceeded"),
        ),
    ],
)
def test_ready(
    fleet: Fleet, wanted: int, changes: dict[str, Any], expected: tuple[str, str]
) -> None:
    found = condition(status_of(done(fleet, wanted, **changes))["conditions"], "Ready")
    assert found is not None
    assert (found["status"], found["reason"]) == expected
    assert found["message"].endswith((".", "no", "few", "no GPU."))


OOM = ContainerRecord("engine", False, False, False, 1, None, None, "OOMKilled", 137, None)


@pytest.mark.parametrize(
    ("pod", "error", "stage", "expected"),
    [
        (STARTING, "NotFound: s3://a/b is empty", "restore", "RestoreFailed"),
        (STARTING, "the engine exited with code 3", "start", "EngineFailed"),
        (replace(STARTING, containers=(OOM,)), "it exited with code 137", "load", "OutOfMemory"),
        (POD, "it is ready again, so this is of yesterday", "load", None),
    ],
)
def test_what_a_launcher_says(pod: PodRecord, error: str, stage: str, expected: str | None) -> None:
    told = {pod.uid: launcher_trouble(pod, error, stage)}
    found = find_troubles(Fleet(current=(pod,)), told)
    assert [trouble.reason for trouble in found] == ([expected] if expected else [])


def test_counts_and_tiers() -> None:
    fleet = Fleet(current=(POD, STARTING), outdated=(POD,), draining=(POD,), deleting=(POD,))
    status = status_of(done(fleet, 2))
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (3, 2, 2)
    assert status["tiers"] == {"hot": 2, "asleep": 0, "starting": 1, "draining": 2}
    assert status["selector"] == "glowplug.dev/model=m,app.kubernetes.io/component=replica"


def test_every_condition_is_there_with_its_generation() -> None:
    found = status_of(done(Fleet(), 0))["conditions"]
    assert [c["type"] for c in found] == [
        "Ready",
        "SnapshotReady",
        "MetricsAvailable",
        "CapacityAvailable",
        "ScalingLimited",
        "TemplateValid",
    ]
    assert {c["observedGeneration"] for c in found} == {3}
    assert all(c["message"] for c in found)


def test_a_decision_keeps_its_time_until_the_next_one() -> None:
    first = status_of(done(Fleet(), 1))
    later = replace(done(Fleet(), 1), before=first, now=1_800_000_500.0)
    later = replace(later, decided=Decided(1, 0, "still, for 500 s", "needed"))
    assert status_of(later)["decision"] == first["decision"]
    changed = replace(later, decided=Decided(2, 0, "more", "needed"))
    assert status_of(changed)["decision"]["reason"] == "more"


def test_the_same_count_for_another_reason_says_so() -> None:
    first = status_of(done(Fleet(), 1))
    kept = replace(done(Fleet(), 1), before=first, now=1_800_000_500.0)
    kept = replace(kept, decided=Decided(1, 0, "a promise keeps it", "warmth"))
    assert status_of(kept)["decision"]["reason"] == "a promise keeps it"


def test_a_young_disturbance_leaves_the_condition_as_it_was() -> None:
    first = status_of(done(Fleet(), 0))
    second = status_of(replace(done(Fleet(), 0), before=first, metrics=None))
    assert second == first


def test_at_rest_the_status_is_the_same() -> None:
    first = status_of(done(Fleet(), 0))
    assert status_of(replace(done(Fleet(), 0), before=first, now=1_900_000_000.0)) == first


def cold_start() -> ColdStart:
    stages = {"schedule": 0.1, "restore": 2.0, "start": 0.6, "unattributed": 0.02}
    return ColdStart("ns/m", "u0", 2.72, stages, {"load": 0.5}, "cold", 1_800_000_003.0)


def test_a_cold_start_is_told_and_survives_a_restart() -> None:
    history = ColdStartHistory()
    history.last = cold_start()
    status = status_of(done(Fleet(current=(POD,)), 1, history=history))
    assert status["coldStart"]["last"]["stages"]["restore"] == 2.0
    again = status_of(replace(done(Fleet(), 0), before=status))
    assert again["coldStart"] == status["coldStart"]
    (told,) = cold_start_news({}, status)
    assert told.sentence.startswith("The first token came 2.7 s after the request: restore 2.0 s")
    assert cold_start_news(status, again) == ()


@pytest.mark.parametrize(
    ("model", "store", "expected"),
    [
        ({}, False, ("False", "NoStore")),
        ({}, True, ("Unknown", "NotTaken")),
        ({"snapshot": {"policy": "Never"}}, True, ("False", "Disabled")),
        ({"snapshot": {"name": "mine"}}, True, ("False", "SnapshotNotFound")),
        ({"source": "pvc://claim/dir"}, True, ("False", "NotNeeded")),
    ],
)
def test_snapshot_ready(model: dict[str, Any], store: bool, expected: tuple[str, str]) -> None:
    found = snapshot_verdict(recipe(**model), None, store=store)
    assert (found.status, found.reason) == expected


def test_news_are_troubles_as_they_begin() -> None:
    calm = status_of(done(Fleet(), 0))["conditions"]
    assert news([], calm) == ()
    broken = status_of(done(Fleet(current=(HOMELESS,)), 1))["conditions"]
    first = news(calm, broken)
    assert {one.reason for one in first} == {"Unschedulable"}
    assert all(one.warning for one in first)
    assert news(broken, broken) == ()


def test_engines_for_prometheus() -> None:
    def listed(**changes: Any) -> PodRecord:
        entry = {"model": "m", "process": 0, "port": 8000, "metricsPath": "/m", **changes}
        return replace(POD, annotations={meta.ANNOTATION_REPLICAS: json.dumps([entry])})

    found = targets(
        [
            listed(metrics="vllm"),
            listed(metrics=None),
            replace(listed(metrics="vllm"), ip=None),
            replace(listed(metrics="vllm"), phase="Failed"),
        ]
    )
    assert found == [
        {
            "targets": ["198.18.0.7:8000"],
            "labels": {
                "namespace": "ns",
                "pod": "m-1-0",
                "glowplug_model": "m",
                "__metrics_path__": "/m",
            },
        }
    ]


def capacity_of(status: dict[str, Any]) -> tuple[str, str]:
    (found,) = [c for c in status["conditions"] if c["type"] == "CapacityAvailable"]
    return found["status"], found["message"]


def test_a_replica_tried_on_the_next_rung_is_as_homeless_as_before() -> None:
    failed = {"reserved": "no GPU here. preemption: none", "spot": "none there."}
    waiting = replace(HOMELESS, unschedulable=None)
    short = status_of(done(Fleet(current=(HOMELESS,)), 1))
    told = "1 of 1 replicas have no node; rung reserved: no GPU here. rung spot: none there."
    tried = status_of(done(Fleet(current=(waiting,)), 1, before=short, failed_rungs=failed))
    assert capacity_of(tried) == ("False", told)
    placed = status_of(done(Fleet(current=(STARTING,)), 1, before=tried, failed_rungs=failed))
    assert capacity_of(placed)[0] == "True"
    another = Fleet(current=(STARTING, waiting))
    more = status_of(done(another, 2, before=placed, failed_rungs=failed))
    assert capacity_of(more)[0] == "True", "one just created lacks nothing yet"
