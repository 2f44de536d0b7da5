"""What keeps a replica from serving, told from its Pod's containers."""

import json
from dataclasses import replace
from typing import Any

import pytest

from glowplug.act.troubles import trouble_of
from glowplug.kube import ContainerRecord, PodRecord

RUNNING = ContainerRecord("engine", True, True, True, 0, None, None, None, None, None)
POD = PodRecord(
    uid="u",
    namespace="ns",
    name="m-1-0",
    resource_version="1",
    labels={},
    annotations={},
    owner_uids=(),
    node="n",
    ip=None,
    phase="Running",
    created=0.0,
    deleting=False,
    scheduled=True,
    unschedulable=None,
    sandbox_ready=True,
    ready=False,
    containers=(RUNNING,),
    init_containers=(),
)


def crashed(**changes: Any) -> ContainerRecord:
    base = replace(RUNNING, running=False, restart_count=2, exit_code=1, terminated_reason="Error")
    return replace(base, waiting_reason="CrashLoopBackOff", **changes)


def error(reason: str, message: str) -> str:
    return json.dumps({"event": "error", "reason": reason, "message": message})


LAUNCHER = json.dumps(
    {"logger": "glowplug-launcher", "event": "failed", "error": "The engine exited with code 3."}
)
AGAIN = replace(RUNNING, ready=False, restart_count=1, exit_code=3, message=LAUNCHER)
"""It runs once more, and is not ready yet."""


@pytest.mark.parametrize(
    ("container", "reason", "told"),
    [
        (replace(RUNNING, running=False, waiting_reason="ContainerCreating"), None, ""),
        (replace(RUNNING, restart_count=3), None, ""),
        (
            replace(RUNNING, running=False, waiting_reason="ErrImagePull", waiting_message="404"),
            "ImagePullFailed",
            "404",
        ),
        (
            replace(RUNNING, running=False, waiting_reason="RegistryUnavailable"),
            "ImagePullFailed",
            "RegistryUnavailable",
        ),
        (crashed(), "EngineExited", "kubectl logs m-1-0 -p"),
        (crashed(message="line one\nline two"), "EngineExited", "line one line two"),
        (crashed(terminated_reason="OOMKilled", exit_code=137), "OutOfMemory", "raise"),
        (
            crashed(message=error("NotFound", "no key x in bucket b")),
            "RestoreFailed",
            "NotFound: no key x in bucket b",
        ),
        (crashed(name="restore", message="gone"), "RestoreFailed", "gone"),
        (crashed(message=f"CUDA is unhappy\n{LAUNCHER}\n"), "EngineFailed", "exited with code 3"),
        (AGAIN, "EngineFailed", "exited with code 3"),
        (replace(AGAIN, ready=True), None, ""),
        (replace(AGAIN, running=False, exit_code=0, message=None), None, ""),
        (crashed(message="x" * 5000 + " the end"), "EngineExited", "the end"),
    ],
)
def test_troubles(container: ContainerRecord, reason: str | None, told: str) -> None:
    found = trouble_of(replace(POD, containers=(container,)))
    assert (found.reason if found else None) == reason
    if found:
        assert told in found.sentence
        assert len(found.sentence) < 700


def test_a_missing_secret_is_named() -> None:
    container = replace(
        RUNNING,
        running=False,
        waiting_reason="CreateContainerConfigError",
        waiting_message='secret "store" not found',
    )
    found = trouble_of(replace(POD, containers=(container,)))
    assert found is not None
    assert found.missing_secret == "store"


def test_a_failed_pod() -> None:
    found = trouble_of(replace(POD, phase="Failed", containers=()))
    assert found is not None
    assert found.reason == "PodFailed"
