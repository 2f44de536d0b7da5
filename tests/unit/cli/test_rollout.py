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
    if state == "deleting":
        metadata["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    ready = {"type": "Ready", "status": "False" if state == "starting" else "True"}
    phase = "Failed" if state == "ended" else "Running"
    return {"metadata": metadata, "status": {"phase": phase, "conditions": [ready]}}


@pytest.mark.parametrize(
    ("pods", "told"),
    [
        ([], "No replica of any revision."),
        ([pod("new"), pod("new")], "Rolled out: 2 updated, all ready."),
        ([pod("new", "ended"), pod("new")], "Rolled out: 1 updated, all ready."),
        ([pod("new"), pod("new", "starting")], "Rolled out: 2 updated, 1 ready."),
        ([pod("new"), pod("old", "draining")], "Rolled out: 1 updated, all ready; 1 draining."),
        ([pod("old", "deleting")], "No replica of any revision; 1 draining."),
        (
            [pod("new", "starting"), pod("old"), pod("older", "draining")],
            "Rolling out: 1 updated (0 ready), 1 of older revisions; 1 draining.",
        ),
    ],
)
def test_how_far_a_rollout_is(pods: list[dict[str, Any]], told: str) -> None:
    assert sentence(revisions(pods, "new")) == told


def test_the_newest_revision_comes_first_then_the_younger() -> None:
    pods = [pod("a", born="09:00"), pod("b", born="11:00"), pod("new", born="10:00")]
    found = revisions([*pods, pod("new", "starting", born="10:30")], "new")
    assert [one.name for one in found] == ["new", "b", "a"]
    assert (found[0].ready, found[0].starting, found[0].since) == (1, 1, "2026-11-23T10:00:00Z")
    assert [one.updated for one in found] == [True, False, False]


def test_labels_are_those_that_the_operator_sets() -> None:
    named = (meta.LABEL_MODEL, meta.LABEL_REVISION, meta.LABEL_STATE)
    assert named == (rollout.MODEL, rollout.REVISION, rollout.STATE)
    assert f"{meta.LABEL_COMPONENT}={meta.COMPONENT_REPLICA}" == rollout.REPLICAS
