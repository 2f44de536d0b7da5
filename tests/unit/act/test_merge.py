"""`spec.template` merged into a Pod, case by case."""

import copy
from typing import Any

import pytest

from glowplug.act.merge import merge_template

POD: dict[str, Any] = {
    "metadata": {
        "name": "m-1-0",
        "labels": {"glowplug.dev/model": "m"},
        "annotations": {"glowplug.dev/replicas": "[]"},
    },
    "spec": {
        "nodeSelector": {"gpu": "a100"},
        "volumes": [{"name": "models", "emptyDir": {"medium": "Memory"}}],
        "containers": [
            {
                "name": "engine",
                "image": "engine:1",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "volumeMounts": [{"name": "models", "mountPath": "/models"}],
                "resources": {"limits": {"nvidia.com/gpu": "1"}},
            }
        ],
    },
}


def engine(**changes: Any) -> dict[str, Any]:
    return {"containers": [{"name": "engine", **changes}]}


@pytest.mark.parametrize(
    ("spec", "path", "expected"),
    [
        ({"nodeSelector": {"zone": "a"}}, ("nodeSelector",), {"zone": "a"}),
        ({"priorityClassName": "high"}, ("priorityClassName",), "high"),
        (engine(), ("containers", 0, "image"), "engine:1"),
        (engine(image="engine:2"), ("containers", 0, "image"), "engine:2"),
        (
            engine(env=[{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]),
            ("containers", 0, "env"),
            [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "3"},
                {"name": "C", "value": "4"},
            ],
        ),
        (
            engine(env=[{"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
            ("containers", 0, "env", 1),
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ),
        (
            engine(volumeMounts=[{"name": "cache", "mountPath": "/models"}]),
            ("containers", 0, "volumeMounts"),
            [{"name": "cache", "mountPath": "/models"}],
        ),
        (engine(resources={}), ("containers", 0, "resources"), {}),
        (
            {"volumes": [{"name": "models", "emptyDir": {}}]},
            ("volumes",),
            [{"name": "models", "emptyDir": {}}],
        ),
        (
            {"containers": [{"name": "logger", "image": "l"}]},
            ("containers", 1),
            {"name": "logger", "image": "l"},
        ),
        (
            {"initContainers": [{"name": "prepare", "image": "p"}]},
            ("initContainers",),
            [{"name": "prepare", "image": "p"}],
        ),
    ],
    ids=[
        "other maps are replaced",
        "a new field",
        "nothing said, nothing changed",
        "image",
        "env by name",
        "an env entry is replaced whole",
        "mounts by path",
        "resources are replaced",
        "a volume is replaced whole",
        "another container",
        "another init container",
    ],
)
def test_spec(spec: dict[str, Any], path: tuple[str | int, ...], expected: Any) -> None:
    before = copy.deepcopy(POD)
    found: Any = merge_template(POD, {"spec": spec})["spec"]
    for step in path:
        found = found[step]
    assert found == expected
    assert before == POD, "the rendered Pod itself stays as it was"


def test_null_takes_a_field_away() -> None:
    assert "nodeSelector" not in merge_template(POD, {"spec": {"nodeSelector": None}})["spec"]


def test_labels_are_added_and_ours_stay() -> None:
    theirs = {"labels": {"team": "x", "glowplug.dev/model": "other"}, "annotations": {"a": "b"}}
    metadata = merge_template(POD, {"metadata": theirs})["metadata"]
    assert metadata["labels"] == {"team": "x", "glowplug.dev/model": "m"}
    assert metadata["annotations"] == {"a": "b", "glowplug.dev/replicas": "[]"}


def test_an_empty_template_changes_nothing() -> None:
    assert merge_template(POD, {}) == POD
