"""helm on a real API server: from the packaged chart 0.1.0 to this tree's, back, and away.

There are no controllers here, so no Pod ever runs; that requests survive is tested on a node, in
tests/e2e/test_upgrade.py. What can be refused, such as a changed immutable field, is refused here.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.apiserver import running
from cluster.config import REPOSITORY, paths

OLD = REPOSITORY / "tests" / "data" / "glowplug-0.1.0.tgz"
NEW = REPOSITORY / "charts" / "glowplug"
CRDS = REPOSITORY / "charts" / "glowplug-crds"
MODELS = "modeldeployments.glowplug.dev"
KINDS = (
    "deployments,services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,"
    "poddisruptionbudgets,networkpolicies,ingresses,secrets"
)
Command = Callable[..., str]


@pytest.fixture(scope="module")
def apiserver() -> Iterator[Path]:
    """One of its own: on the shared one, other tests own the CRDs that helm is to install."""
    with running() as kubeconfig:
        yield kubeconfig


@pytest.fixture
def command(apiserver: Path, tmp_path: Path) -> Command:
    """Run helm or kubectl on the API server; a failure is the test's."""
    homes = {f"HELM_{name}_HOME": str(tmp_path / name) for name in ("CACHE", "CONFIG", "DATA")}

    def run(program: str, *words: str | Path, stdin: str | None = None) -> str:
        done = subprocess.run(
            [paths().bin / program, "--kubeconfig", apiserver, *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | homes,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def namespace(command: Command) -> str:
    name = f"system-{uuid.uuid4().hex[:8]}"
    command("kubectl", "create", "namespace", name)
    for verb in ("enforce", "warn"):
        label = f"pod-security.kubernetes.io/{verb}=restricted"
        command("kubectl", "label", "namespace", name, label)
    return name


def release(command: Command, namespace: str) -> list[dict[str, Any]]:
    """Every object of the release, helm's own records left out."""
    selector = "app.kubernetes.io/instance=glowplug"
    words = ("get", KINDS, "-n", namespace, "-l", selector, "-o", "json")
    items: list[dict[str, Any]] = json.loads(command("kubectl", *words))["items"]
    return items


def versions(objects: list[dict[str, Any]]) -> set[str]:
    return {o["metadata"]["labels"]["helm.sh/chart"] for o in objects}


def names(objects: list[dict[str, Any]]) -> set[str]:
    return {f"{o['kind']}/{o['metadata']['name']}" for o in objects}


EVERYTHING = [
    "--set=gateway.tls.secretName=gateway-tls",
    "--set=ingress.enabled=true,ingress.host=models.example.com",
    "--set=networkPolicy.enabled=true,networkPolicy.modelNamespaces={default}",
]


def test_an_upgrade_from_010_a_rollback_and_an_uninstall(command: Command, namespace: str) -> None:
    where = ("-n", namespace)
    command("helm", "install", "glowplug", OLD, *where)
    before = release(command, namespace)
    assert versions(before) == {"glowplug-0.1.0"}

    told = command("helm", "upgrade", "glowplug", NEW, *where)
    assert "helm upgrade --install glowplug-crds" in told
    after = release(command, namespace)
    assert versions(after) == {"glowplug-0.2.0"}
    assert names(before) < names(after)
    uids = {o["metadata"]["uid"] for o in after}
    assert {o["metadata"]["uid"] for o in before} <= uids, "nothing was replaced, all was changed"

    command("helm", "upgrade", "glowplug", NEW, *where, *EVERYTHING)
    everything = names(release(command, namespace))
    assert "Ingress/glowplug-gateway" in everything
    assert "NetworkPolicy/glowplug-gateway" in everything

    command("helm", "rollback", "glowplug", "1", *where)
    back = release(command, namespace)
    assert versions(back) == {"glowplug-0.1.0"}
    assert names(back) == names(before)
    assert {name(o): o["spec"] for o in back if o["kind"] == "Deployment"} == {
        name(o): o["spec"] for o in before if o["kind"] == "Deployment"
    }

    command("helm", "upgrade", "glowplug", NEW, *where)
    command("helm", "uninstall", "glowplug", *where)
    assert release(command, namespace) == []
    left = json.loads(command("kubectl", "get", KINDS, *where, "-o", "json"))["items"]
    assert [o for o in left if "glowplug" in o["metadata"]["name"]] == []
    assert command("kubectl", "get", "crd", MODELS, "-o", "name"), "models outlive a release"


def name(body: dict[str, Any]) -> str:
    full: str = body["metadata"]["name"]
    return full


def test_the_crds_chart_takes_over_the_crds_that_helm_only_installs(
    command: Command, namespace: str
) -> None:
    where = ("-n", namespace)
    command("helm", "install", "glowplug", OLD, *where)
    # As if the CRD were older than a field: the column is not there yet.
    short = [{"op": "replace", "path": "/spec/names/shortNames", "value": ["older"]}]
    command("kubectl", "patch", "crd", MODELS, "--type=json", "-p", json.dumps(short))
    model = {
        "apiVersion": "glowplug.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "stays", "namespace": namespace},
        "spec": {"model": {"source": "s3://models/x"}, "engine": {"type": "vllm"}},
    }
    command("kubectl", "wait", "--for=condition=Established", "crd", MODELS)
    command("kubectl", "create", "-f", "-", stdin=json.dumps(model))
    uid = ("get", MODELS, "stays", *where, "-o", "jsonpath={.metadata.uid}")
    before = command("kubectl", *uid)

    command("helm", "upgrade", "glowplug", NEW, *where)
    short_names = ("get", "crd", MODELS, "-o", "jsonpath={.spec.names.shortNames}")
    assert command("kubectl", *short_names) == '["older"]', "helm leaves crds/ alone"
    first = ("--take-ownership", "--force-conflicts")
    command("helm", "upgrade", "--install", "glowplug-crds", CRDS, *where, *first)
    assert command("kubectl", *short_names) == '["mdep"]'
    command("helm", "upgrade", "glowplug-crds", CRDS, *where)  # later ones need no flag

    for chart in ("glowplug-crds", "glowplug"):
        command("helm", "uninstall", chart, *where)
    assert command("kubectl", *uid) == before, "the CRDs were kept, and the models with them"
    command("kubectl", "delete", MODELS, "stays", *where)
