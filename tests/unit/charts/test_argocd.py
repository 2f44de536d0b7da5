"""Argo CD's view of our kinds: the health scripts, run by Lua on statuses as the operator writes.

Argo CD gives a script no string, io or os library, so the tests take them away too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from cluster.config import REPOSITORY, paths
from glowplug.act import conditions
from glowplug.act.conditions import Verdict, judged
from glowplug.act.plan import Fleet
from glowplug.act.snapshot import progress_verdict
from glowplug.api import meta

HEALTH = REPOSITORY / "deploy" / "argocd" / "health"
FILES = {
    f"resource.customizations.health.{meta.GROUP}_{kind}": f"{kind.lower()}.lua"
    for kind in ("ModelDeployment", "ModelSnapshot", "GPUPool")
}
GENERATION = 3
Health = tuple[str, str]


def run(file: str, status: dict[str, Any] | None) -> Health:
    """The health of an object of generation 3."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    for library in ("string", "io", "os", "math", "debug"):
        lua.execute(f'getmetatable("").__index = nil; {library} = nil')
    body: dict[str, Any] = {"metadata": {"name": "x", "generation": GENERATION}}
    if status is not None:
        body["status"] = status
    lua.globals().obj = lua.table_from(body, recursive=True)
    answer = lua.execute((HEALTH / file).read_text())
    return answer.status, answer.message


def status_of(*verdicts: Verdict, seen: int = GENERATION, **numbers: int) -> dict[str, Any]:
    return {"conditions": judged([], verdicts, 0.0, seen), **numbers}


def no(reason: str, message: str, kind: str = "Ready") -> Verdict:
    return Verdict(kind, "False", reason, message)


ACCEPTED = conditions.template(None)
ROOM = Verdict("CapacityAvailable", "True", "Sufficient", "Every wanted replica has a place.")
AT_ZERO = conditions.ready(Fleet(), 0, (), ACCEPTED, ROOM)
STARTING = conditions.ready(Fleet(), 1, (), ACCEPTED, ROOM)
SERVING = Verdict("Ready", "True", "Serving", "2 of 2 replicas serve.")
REFUSED = conditions.template("spec.containers[0].image: Required value")
UNSEEN = ("Progressing", "The operator has not seen the last change yet.")
NEW = ("Progressing", "The operator has not looked at it yet.")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, NEW),
        ({}, NEW),
        (status_of(SERVING, ACCEPTED, seen=GENERATION - 1), UNSEEN),
        (status_of(AT_ZERO, ACCEPTED), ("Healthy", AT_ZERO.message)),
        (status_of(STARTING, ACCEPTED), ("Progressing", STARTING.message)),
        (
            status_of(SERVING, ACCEPTED, replicas=2, updatedReplicas=2),
            ("Healthy", SERVING.message),
        ),
        (
            status_of(SERVING, ACCEPTED, replicas=2, updatedReplicas=1),
            ("Progressing", "1 of 2 replicas are of the last revision."),
        ),
        (
            status_of(SERVING, REFUSED, replicas=2, updatedReplicas=0),
            ("Degraded", REFUSED.message),
        ),
        (
            status_of(no("EngineFailed", "Pod a: the engine ended with 1."), ACCEPTED),
            ("Degraded", "Pod a: the engine ended with 1."),
        ),
        (status_of(conditions.invalid(["spec.x: no"])), ("Degraded", "spec.x: no")),
        (
            status_of(SERVING, no("Taking", "Copying.", "SnapshotReady"), ACCEPTED),
            ("Healthy", SERVING.message),
        ),
        (status_of(Verdict("Ready", "Unknown", "Lost", "Not known.")), ("Progressing", "Not")),
    ],
)
def test_model_deployment(status: dict[str, Any] | None, expected: Health) -> None:
    health, message = run("modeldeployment.lua", status)
    assert health == expected[0]
    assert expected[1] in message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, NEW),
        (status_of(progress_verdict((), None, "ns")), ("Progressing", "The weights are being")),
        (status_of(Verdict("Ready", "True", "Taken", "9 files.")), ("Healthy", "9 files.")),
        (status_of(no("NotFound", "s3://a/b: no key")), ("Degraded", "s3://a/b: no key")),
        (status_of(no("NoStore", "Set store.url."), seen=1), UNSEEN),
    ],
)
def test_model_snapshot(status: dict[str, Any] | None, expected: Health) -> None:
    health, message = run("modelsnapshot.lua", status)
    assert health == expected[0]
    assert expected[1] in message


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, NEW),
        (status_of(Verdict("Ready", "True", "Usable", "Models run.")), ("Healthy", "Models run.")),
        (status_of(no("SecondDefault", "One only.")), ("Degraded", "One only.")),
        (status_of(no("SecondDefault", "One only."), seen=2), UNSEEN),
    ],
)
def test_gpu_pool(status: dict[str, Any] | None, expected: Health) -> None:
    assert run("gpupool.lua", status) == expected


def test_kustomize_puts_each_script_under_argo_cds_key() -> None:
    kubectl = paths().bin / "kubectl"
    if not kubectl.exists():
        pytest.skip("there is no kubectl yet: `make test` builds it")
    done = subprocess.run(
        [kubectl, "kustomize", HEALTH], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    settings = yaml.safe_load(done.stdout)
    assert (settings["metadata"]["namespace"], settings["metadata"]["name"]) == (
        "argocd",
        "argocd-cm",
    )
    assert settings["data"] == {key: (HEALTH / file).read_text() for key, file in FILES.items()}


@pytest.fixture(scope="module")
def application() -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((HEALTH.parent / "application.yaml").read_text())
    return body


def test_the_application_names_charts_that_are_here(
    application: dict[str, Any], helm: Callable[..., Any]
) -> None:
    sources = application["spec"]["sources"]
    assert [source["path"] for source in sources] == ["charts/glowplug-crds", "charts/glowplug"]
    for source in sources:
        values = yaml.safe_dump(source["helm"].get("valuesObject", {}))
        done = helm("template", "x", REPOSITORY / source["path"], "--values", "-", stdin=values)
        assert done.returncode == 0, done.stderr
        version = yaml.safe_load((REPOSITORY / source["path"] / "Chart.yaml").read_text())[
            "version"
        ]
        assert source["targetRevision"] == f"v{version}"
    assert sources[1]["helm"]["skipCrds"] is True, "two sources would render the CRDs"
