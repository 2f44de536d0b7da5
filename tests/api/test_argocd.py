"""What Argo CD's own controller finds different between git and a real API server: nothing of ours.

Nobody runs the Pods here; what needs a node is in tests/e2e/test_argocd.py.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from cluster.apiserver import serving
from cluster.client import Cluster
from cluster.config import REPOSITORY, paths
from cluster.control_plane import controllers
from cluster.gitops import argocd
from cluster.processes import stop
from stack.gitops import Argo, Git, complaint, syncs
from stack.stack import EXAMPLE, Json, Stack

DEPLOY = REPOSITORY / "deploy" / "argocd"
KIND = "modeldeployments.glowplug.dev"
FILE = "models/smollm2.yaml"
SERVER_SIDE = "argocd.argoproj.io/compare-options"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def argo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Argo]:
    """Argo CD on an API server with the controllers that collect garbage, and a repository."""
    git = Git(tmp_path_factory.mktemp("git"))
    git.run("init", "--quiet", "--initial-branch=main")
    shutil.copytree(REPOSITORY / "charts", git.folder / "charts")
    git.commit("Vendor the charts", {"models/smollm2.yaml": model()})
    git.run("tag", "v0.2.0")
    with serving() as server, pytest.MonkeyPatch.context() as environment:
        kubeconfig = server.kubeconfig("kubeconfig", "kubernetes-admin", "system:masters")
        environment.setenv("GLOWPLUG_KUBECONFIG", str(kubeconfig))
        environment.setenv("GLOWPLUG_CLUSTER_DIR", str(server.directory / "argocd"))
        manager = controllers(server)[0]
        manager = dataclasses.replace(manager, argv=[*manager.argv, "--secure-port=0"])
        try:
            manager.start()
            with argocd(paths()):
                yield Argo(_stack(kubeconfig), git)
        finally:
            stop(manager.pidfile)


def _stack(kubeconfig: Path) -> Stack:
    """What of a stack there is: its API server."""
    return Stack(Cluster(kubeconfig, "", ""), gateway_url="", prometheus_url="", s3_endpoint="")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def synced(argo: Argo) -> Argo:
    """Both of our Applications, as they are but for the repository, synced once."""
    for name in ("application", "models"):
        body: Json = yaml.safe_load((DEPLOY / f"{name}.yaml").read_text())
        spec = body["spec"]
        for source in spec.get("sources") or [spec["source"]]:
            source["repoURL"] = argo.git.url
        argo.stack.cluster.apply(body)
        await argo.until(body["metadata"]["name"], "Progressing")
    return argo


def model(**scaling: int) -> Json:
    """The example's model in the team's namespace."""
    body: Json = yaml.safe_load((EXAMPLE / "modeldeployment.yaml").read_text())
    body["spec"]["scaling"] |= scaling
    return body


def live(argo: Argo) -> Json:
    """The spec of the model as the API server has it."""
    body: Json = argo.stack.cluster.get("-n", "team-a", KIND, "smollm2")
    spec: Json = body["spec"]
    return spec


async def test_the_crds_go_first_and_nothing_differs_after_a_sync(synced: Argo) -> None:
    for name in ("glowplug", "models"):
        before = synced.get(name)
        again = await synced.compare(name)
        assert again["status"]["sync"]["status"] == "Synced"
        assert syncs(again) == syncs(before)

    operation = synced.get("glowplug")["status"]["operationState"]
    applied = [one["kind"] for one in operation["syncResult"]["resources"]]
    applied = [kind for kind in applied if kind != "Namespace"]
    assert applied[:3] == ["CustomResourceDefinition"] * 3
    assert "CustomResourceDefinition" not in applied[3:]


@pytest.mark.parametrize(
    ("name", "expected"), [("models", set()), ("glowplug", {"CustomResourceDefinition"})]
)
async def test_without_the_server_side_diff_the_crds_alone_differ(
    synced: Argo, name: str, expected: set[str]
) -> None:
    pause = '{"spec": {"syncPolicy": {"automated": {"enabled": false}}}}'
    synced.kubectl("patch", "application", name, "--type=merge", "-p", pause)
    synced.kubectl("annotate", "application", name, f"{SERVER_SIDE}-")
    try:
        found = (await synced.compare(name))["status"]["resources"]
        assert {one["kind"] for one in found if one["status"] != "Synced"} == expected
    finally:
        synced.kubectl("annotate", "application", name, f"{SERVER_SIDE}=ServerSideDiff=true")
        resume = pause.replace("false", "true")
        synced.kubectl("patch", "application", name, "--type=merge", "-p", resume)
    assert (await synced.compare(name))["status"]["sync"]["status"] == "Synced"


async def test_kubectl_scale_is_no_difference_where_git_leaves_replicas_out(synced: Argo) -> None:
    before = await synced.compare("models")
    synced.stack.cluster.kubectl("-n", "team-a", "scale", KIND, "smollm2", "--replicas=0")
    after = await synced.compare("models")
    assert after["status"]["sync"]["status"] == "Synced"
    assert syncs(after) == syncs(before)
    assert live(synced)["replicas"] == 0, "nobody took it back"


async def test_a_field_that_is_refused_is_told_and_what_there_was_stays(synced: Argo) -> None:
    spec = live(synced)
    synced.git.commit("Ask for more than the most", {FILE: model(minReplicas=3, maxReplicas=1)})
    refused = await synced.compare("models")
    assert "minReplicas must not be greater" in complaint(refused), "the API server's sentence"
    assert live(synced) == spec

    mended = synced.git.commit("Ask for one", {FILE: model(minReplicas=1, maxReplicas=1)})
    await synced.compare("models")
    await synced.until("models", "Progressing", revision=mended)
    assert live(synced)["scaling"]["minReplicas"] == 1


async def test_what_was_synced_goes_with_its_application_but_the_kinds_stay(synced: Argo) -> None:
    synced.delete("models")
    assert synced.stack.cluster.get(KIND, "-A")["items"] == []
    synced.delete("glowplug")
    left = synced.stack.cluster.get("deployments,services,roles", "-n", "glowplug-system")
    assert left["items"] == []
    kinds = synced.stack.cluster.get("crds", "-l", "app.kubernetes.io/part-of=glowplug")["items"]
    assert len(kinds) == 3, "deleting them would delete every model in the cluster"
