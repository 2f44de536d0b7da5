"""Argo CD's own controller installs the charts and a model from git, by the files that we ship.

What needs no node is in tests/api/test_argocd.py. One Argo CD and one release serve all tests here;
the last one takes the release away.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio
import yaml

from cluster import services
from cluster.config import REPOSITORY, paths
from cluster.gitops import argocd
from stack.ask import ask
from stack.gitops import Argo, Git, syncs
from stack.install import CHART, RELEASE, helm, install, service_ip, values
from stack.leftovers import left
from stack.stack import EXAMPLE, Json, Stack

DEPLOY = REPOSITORY / "deploy" / "argocd"
VERSION = "v0.2.0"  # the tag that application.yaml names
KIND = "modeldeployments.glowplug.dev"
MODEL = "smollm2"
FILE = f"models/{MODEL}.yaml"

pytestmark = [
    pytest.mark.replaces_release,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        "GLOWPLUG_SOAK" not in os.environ,
        reason="about 6 minutes: `make soak`, or GLOWPLUG_SOAK=1 pytest tests/e2e/test_argocd.py",
    ),
]


@pytest.fixture(scope="module")
def argo(installed: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Argo]:
    """Argo CD in the place of helm and kubectl; afterwards the cluster is as they had left it."""
    git = Git(tmp_path_factory.mktemp("git"))
    git.run("init", "--quiet", "--initial-branch=main")
    shutil.copytree(REPOSITORY / "charts", git.folder / "charts")
    git.commit("Vendor the charts", {})
    git.run("tag", VERSION)
    try:
        _remove(installed)
        with argocd(paths()):
            yield Argo(installed, git)
    finally:
        _remove(installed)
        install()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def synced(argo: Argo) -> Argo:
    """Glowplug as its Application installs it, with this tree's images and this cluster's store."""
    where = paths()
    body: Json = yaml.safe_load((DEPLOY / "application.yaml").read_text())
    sources = body["spec"]["sources"]
    for source in sources:
        source["repoURL"] = argo.git.url
    told = [{"name": name, "value": value} for name, value in values(where).items()]
    sources[1]["helm"]["parameters"] = told
    argo.stack.cluster.apply(body)
    await argo.until("glowplug", "Healthy", seconds=300)
    services.scrape(where, f"http://{service_ip(where, 'glowplug-operator')}:8080/sd/engines")
    gateway = f"http://{service_ip(where, 'glowplug-gateway')}"
    return replace(argo, stack=replace(argo.stack, gateway_url=gateway))


@pytest.fixture
async def models(synced: Argo) -> AsyncIterator[Argo]:
    """The same with the Application of a team's models: the pool, the store's Secret, no model."""
    files: dict[str, Json] = {
        f"models/{name}.yaml": yaml.safe_load((EXAMPLE / f"{name}.yaml").read_text())
        for name in ("pool", "secret")
    }
    revision = synced.git.commit("Start with no model", files)
    body: Json = yaml.safe_load((DEPLOY / "models.yaml").read_text())
    body["spec"]["destination"]["namespace"] = synced.stack.namespace
    body["spec"]["source"]["repoURL"] = synced.git.url
    synced.stack.cluster.apply(body)
    await synced.until("models", "Healthy", revision=revision)
    yield synced
    synced.delete("models")
    synced.git.run("rm", "-r", "--quiet", "models")
    synced.git.run("commit", "--quiet", "-m", "Remove the models")


def _remove(stack: Stack) -> None:
    """Take away everything of Glowplug's, whoever had installed it."""
    where = paths()
    helm(where, "uninstall", RELEASE, "--ignore-not-found")
    objects = helm(where, "template", RELEASE, CHART, "--skip-crds", values=values(where))
    stack.kubectl("-n", stack.system, "delete", "--ignore-not-found", "-f", "-", stdin=objects)
    stack.kubectl("delete", "--ignore-not-found", "-f", str(REPOSITORY / "crds"))


async def test_both_charts_serve_and_nothing_differs_afterwards(synced: Argo) -> None:
    app = synced.get("glowplug")
    again = await synced.compare("glowplug")
    assert again["status"]["sync"]["status"] == "Synced"
    assert syncs(again) == syncs(app)
    names = {one["metadata"]["name"] for one in synced.stack.find("pods", "", synced.stack.system)}
    assert len(names) == 4, "two operators and two gateways"


async def test_a_model_stays_synced_while_it_scales_up_and_to_zero(models: Argo) -> None:
    stack = models.stack
    revision = models.git.commit("Add a model", {FILE: stack.smollm2(MODEL)})
    await models.compare("models")
    parked = await models.until("models", "Healthy", revision=revision)
    assert models.health(MODEL) == ("Healthy", models.told(MODEL, "ScaledToZero"))
    generation = _live(stack)["metadata"]["generation"]

    with models.watched("models") as passed:
        answer = await ask(stack.gateway_url, MODEL, "What is the capital of France?")
        assert answer.finished
        await models.until("models", "Healthy")
        assert stack.ready_replicas(MODEL) == 1
        serving = await models.compare("models")
        assert models.health(MODEL) == ("Healthy", models.told(MODEL, "Serving"))
        await stack.until(lambda: stack.pods(MODEL) == [], 120)
        await models.until("models", "Healthy")
        at_zero = await models.compare("models")

    assert models.health(MODEL) == ("Healthy", models.told(MODEL, "ScaledToZero"))
    assert {line.split()[0] for line in passed} == {"Synced"}
    assert {"Synced Progressing", "Synced Healthy"} == set(passed)
    assert syncs(parked) == syncs(serving) == syncs(at_zero), "no sync was needed"
    assert _live(stack)["metadata"]["generation"] == generation


async def test_a_change_in_git_rolls_out_and_its_revert_rolls_back(models: Argo) -> None:
    stack = models.stack
    body = stack.smollm2(MODEL)
    body["spec"]["scaling"]["minReplicas"] = 1
    first = models.git.commit("Add a model that always runs", {FILE: body})
    await models.compare("models")
    await models.until("models", "Healthy", revision=first)
    [before] = _revisions(stack)

    body["spec"]["engine"]["env"] = [{"name": "GLOWPLUG_EXAMPLE_START_DELAY", "value": "1"}]
    second = models.git.commit("Change its engine", {FILE: body})
    with models.watched("models") as passed:
        await models.compare("models")
        await stack.until(lambda: _revisions(stack) not in ([], [before]), 60)
        await models.until("models", "Healthy", revision=second)
    assert "Synced Progressing" in passed
    await stack.until(lambda: len(_revisions(stack)) == 1, 60)
    assert _revisions(stack) != [before]

    models.git.run("revert", "--no-edit", "HEAD")
    await models.compare("models")
    await stack.until(lambda: _revisions(stack) == [before], 120)
    await models.until("models", "Healthy", revision=models.git.run("rev-parse", "HEAD"))


async def test_a_source_that_does_not_exist_is_degraded_and_says_so(models: Argo) -> None:
    body = models.stack.smollm2(MODEL)
    body["spec"]["model"]["source"] = "s3://models/no-such-model"
    body["spec"]["scaling"]["minReplicas"] = 1
    revision = models.git.commit("Add a model that is nowhere", {FILE: body})
    await models.compare("models")
    await models.until("models", "Degraded", revision=revision)
    health, message = models.health(MODEL)
    assert (health, message) == ("Degraded", models.told(MODEL))
    assert "no-such-model" in message


async def test_deleting_the_applications_leaves_nothing_but_the_kinds(models: Argo) -> None:
    stack = models.stack
    revision = models.git.commit("Add a model", {FILE: stack.smollm2(MODEL)})
    await models.compare("models")
    await models.until("models", "Healthy", revision=revision)
    assert (await ask(stack.gateway_url, MODEL, "Hi", max_tokens=1)).finished
    models.delete("models")
    await stack.until(lambda: stack.objects_of(MODEL) == [], 90)

    models.delete("glowplug")
    await stack.until(lambda: left(stack) == set(), 90)
    kinds = stack.cluster.get("crds", "-l", "app.kubernetes.io/part-of=glowplug")["items"]
    assert len(kinds) == 3, "deleting them would delete every model in the cluster"


def _live(stack: Stack) -> Json:
    body = stack.get(KIND, MODEL)
    assert body is not None
    return body


def _revisions(stack: Stack) -> list[str]:
    """The revision of each of the model's Pods, terminating ones included."""
    return [pod["metadata"]["labels"]["glowplug.dev/revision"] for pod in stack.pods(MODEL)]
