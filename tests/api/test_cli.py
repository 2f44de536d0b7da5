"""The `glowplug` command against a real API server."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cluster.config import REPOSITORY, paths
from glowplug.cli.main import app

STATUS = {
    "replicas": 1,
    "readyReplicas": 1,
    "tiers": {"hot": 1},
    "decision": {"desired": 1, "reason": "Pinned by spec.replicas.", "at": "2026-11-23T12:00:00Z"},
    "coldStart": {
        "p50": 3.4,
        "samples": 1,
        "last": {"total": 3.4, "path": "cold", "stages": {"restore": 2.0, "load": 1.4}},
    },
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "1 of 1 replicas serves.",
            "lastTransitionTime": "2026-11-23T12:00:00Z",
        }
    ],
}

Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def kubectl(apiserver: Path) -> Kubectl:
    def run(*words: str, stdin: str | None = None) -> str:
        command = [paths().bin / "kubectl", "--kubeconfig", apiserver, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def crds(kubectl: Kubectl) -> None:
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
    kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"))


@pytest.fixture
def glowplug(apiserver: Path) -> Callable[..., Result]:
    """Run the command as a user would."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--kubeconfig", str(apiserver)])

    return run


@pytest.fixture
def pinned(kubectl: Kubectl, crds: None) -> str:
    """A model that is pinned at one replica, with a status."""
    name = "cli-pinned"
    body = {
        "apiVersion": "glowplug.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"replicas": 1, "model": {"source": "s3://models/smollm2"}},
    }
    kubectl("apply", "-n", "default", "-f", "-", stdin=json.dumps(body))
    patch = json.dumps({"status": STATUS})
    kind = "modeldeployments.glowplug.dev"
    kubectl(
        *("patch", "-n", "default", kind, name),
        *("--subresource=status", "--type=merge", "-p", patch),
    )
    return name


def test_status_lists_models_here_and_everywhere(glowplug, pinned: str) -> None:
    here = glowplug("status")
    assert here.exit_code == 0, here.output
    assert pinned in here.stdout
    assert "1/1 (pinned at 1)" in here.stdout
    everywhere = glowplug("status", "-A")
    assert "NAMESPACE" in everywhere.stdout
    elsewhere = glowplug("status", "-n", "kube-system")
    assert elsewhere.exit_code == 0
    assert "no ModelDeployments in this namespace; -A looks in all" in elsewhere.stdout


def test_status_of_one_has_its_conditions_and_its_json(glowplug, pinned: str) -> None:
    assert "1 of 1 replicas serves. (Serving" in glowplug("status", pinned).stdout
    body = json.loads(glowplug("status", pinned, "--json").stdout)
    assert body["metadata"]["name"] == pinned
    assert body["status"]["decision"]["desired"] == 1


def test_timeline_and_explain_read_what_the_server_keeps(glowplug, pinned: str) -> None:
    timeline = glowplug("timeline", pinned).stdout
    assert "restore" in timeline
    assert "3.40 s" in timeline
    explained = glowplug("explain", pinned).stdout
    assert "Why: Pinned by spec.replicas." in explained
    assert f"`glowplug release {pinned}`" in explained


def test_release_removes_the_pin_once(glowplug, kubectl: Kubectl, pinned: str) -> None:
    released = glowplug("release", pinned)
    assert released.exit_code == 0, released.output
    assert "no longer pinned at 1" in released.stdout
    body = json.loads(
        kubectl("get", "-n", "default", "modeldeployments.glowplug.dev", pinned, "-o", "json")
    )
    assert "replicas" not in body["spec"]
    assert body["spec"]["model"] == {"source": "s3://models/smollm2"}
    again = glowplug("release", pinned)
    assert again.exit_code == 0
    assert "was not pinned" in again.stdout


@pytest.mark.parametrize("command", ["status", "timeline", "explain", "release"])
def test_a_name_that_is_not_there_says_what_to_do(glowplug, crds: None, command: str) -> None:
    missing = glowplug(command, "nobody")
    assert missing.exit_code == 1
    assert "no ModelDeployment nobody in the namespace default" in missing.stderr
    assert "glowplug status -A" in missing.stderr
