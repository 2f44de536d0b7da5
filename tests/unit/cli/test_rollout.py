"""Replicas by revision, and how far a rollout is."""

from typing import Any

import pytest

from glowplug.api import meta
from glowplug.cli import rollout
from glowplug.cli.rollout import revisions, sentence


def pod(revision: str, state: str = "ready", born: str = "10:00") -> dict[str, Any]:
    labels = {rollout.REVISION: revision}
    if state == "draining":
        labels[rollout.STATE] = "draining"
    metadata: dict[str, Any] = {"labels": labels, "creationTimestamp": f"2026-11-23T{born}:00Z"}
    metadata["uid"] = f"{revision}-{state}"
    if state == "deleting":
        metadata["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    ready = {"type": "Ready", "status": "False" if state == "starting" else "True"}
    phase = "Failed" if state == "ended" else "Running"
    return {"metadata": metadata, "status": {"phase": phase, "conditions": [ready]}}


@pytest.mark.parametrize(
    ("pods", "wanted", "told"),
    [
        ([], 0, "No replica of any revision."),
        ([], 3, "Rolling out: 0 of 3 updated (0 ready)."),
        ([pod("new"), pod("new")], 2, "Rolled out: 2 of 2 updated (all ready)."),
        ([pod("new"), pod("new")], None, "Rolled out: 2 updated (all ready)."),
        ([pod("new", "ended"), pod("new")], 1, "Rolled out: 1 of 1 updated (all ready)."),
        ([pod("new"), pod("new", "starting")], 2, "Rolling out: 2 of 2 updated (1 ready)."),
        (
            [pod("new"), pod("new", "draining")],
            1,
            "Rolled out: 1 of 1 updated (all ready), 1 draining (0 in flight).",
        ),
        (
            [pod("new"), pod("new"), pod("old", "draining")],
            3,
            "Rolling out: 2 of 3 updated (all ready), 1 old draining (4 in flight).",
        ),
        ([pod("old", "deleting")], 0, "Rolling out: 1 old draining (0 in flight)."),
        (
            [pod("new", "starting"), pod("old"), pod("old", "draining")],
            2,
            "Rolling out: 1 of 2 updated (0 ready), 1 old serving, 1 old draining (4 in flight).",
        ),
    ],
)
def test_how_far_a_rollout_is(pods: list[dict[str, Any]], wanted: int | None, told: str) -> None:
    assert sentence(revisions(pods, "new", {"old-draining": 4}), wanted) == told


def test_what_is_in_flight_is_left_out_where_nobody_can_tell() -> None:
    found = revisions([pod("new"), pod("old", "draining")], "new", None)
    assert sentence(found, 1) == "Rolling out: 1 of 1 updated (all ready), 1 old draining."


def test_the_newest_revision_comes_first_then_the_younger() -> None:
    pods = [pod("a", born="09:00"), pod("b", born="11:00"), pod("new", born="10:00")]
    found = revisions([*pods, pod("new", "starting", born="10:30")], "new", {})
    assert [one.name for one in found] == ["new", "b", "a"]
    assert (found[0].ready, found[0].starting, found[0].since) == (1, 1, "2026-11-23T10:00:00Z")
    assert [one.updated for one in found] == [True, False, False]


def test_labels_are_those_that_the_operator_sets() -> None:
    named = (meta.LABEL_MODEL, meta.LABEL_REVISION, meta.LABEL_STATE)
    assert named == (rollout.MODEL, rollout.REVISION, rollout.STATE)
    assert f"{meta.LABEL_COMPONENT}={meta.COMPONENT_REPLICA}" == rollout.REPLICAS
