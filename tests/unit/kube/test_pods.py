"""A Pod as the API server writes it becomes a record."""

import pytest

from glowplug.kube import ContainerRecord, trim_pod


def pod(**status) -> dict:
    return {
        "metadata": {
            "uid": "u",
            "namespace": "ns",
            "name": "m-1a2b3c4d-0",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"glowplug.dev/model": "m"},
            "annotations": {"glowplug.dev/replicas": "[]", "kubectl.kubernetes.io/x": "y" * 9000},
            "ownerReferences": [{"uid": "o1"}, {"uid": "o2"}],
        },
        "spec": {"nodeName": "node-1"},
        "status": status,
    }


def condition(kind: str, status: str, **more) -> dict:
    return {"type": kind, "status": status} | more


def test_a_fresh_pod_has_nothing_yet():
    record = trim_pod(pod())
    assert (record.phase, record.ip, record.scheduled, record.ready) == (
        "Pending",
        None,
        False,
        False,
    )
    assert record.created == 1767323045.0
    assert record.owner_uids == ("o1", "o2")
    assert record.annotations == {"glowplug.dev/replicas": "[]"}, "others' annotations are not kept"


@pytest.mark.parametrize(
    ("conditions", "field", "expected"),
    [
        ([condition("PodScheduled", "True")], "scheduled", True),
        (
            [condition("PodScheduled", "False", reason="Unschedulable", message="no GPU")],
            "unschedulable",
            "no GPU",
        ),
        (
            [condition("PodScheduled", "False", reason="SchedulingGated", message="gated")],
            "unschedulable",
            None,
        ),
        ([condition("PodReadyToStartContainers", "True")], "sandbox_ready", True),
        ([condition("Ready", "True")], "ready", True),
        ([condition("Ready", "False")], "ready", False),
    ],
)
def test_conditions(conditions, field, expected):
    assert getattr(trim_pod(pod(conditions=conditions)), field) == expected


def test_a_container_that_waits_to_restart_still_shows_how_it_ended():
    status = {
        "name": "engine",
        "restartCount": 2,
        "ready": False,
        "started": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}},
        "lastState": {"terminated": {"exitCode": 3, "reason": "Error", "message": "no model"}},
    }
    (found,) = trim_pod(pod(containerStatuses=[status])).containers
    assert found == ContainerRecord(
        name="engine",
        running=False,
        started=False,
        ready=False,
        restart_count=2,
        waiting_reason="CrashLoopBackOff",
        waiting_message="back-off 20s",
        terminated_reason="Error",
        exit_code=3,
        message="no model",
    )


def test_deletion_shows():
    body = pod()
    body["metadata"]["deletionTimestamp"] = "2026-01-02T03:05:00Z"
    assert trim_pod(body).deleting
