"""What the repository tells people to apply, applied to a real API server."""

import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.config import REPOSITORY, paths

EXAMPLES = sorted((REPOSITORY / "examples").glob("*/*.yaml"))


def run(*words: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], input=stdin, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def kubectl(apiserver: Path) -> list[str]:
    """The start of a kubectl command line on a server that knows our kinds."""
    words = [str(paths().bin / "kubectl"), "--kubeconfig", str(apiserver)]
    for verb in (["apply", "--server-side", "--force-conflicts"], ["wait", "--for=create"]):
        done = run(*words, *verb, "-f", REPOSITORY / "crds")
        assert done.returncode == 0, done.stderr
    done = run(*words, "wait", "--for=condition=Established", "-f", REPOSITORY / "crds")
    assert done.returncode == 0, done.stderr
    return words


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_example_is_accepted_without_a_warning(kubectl: list[str], path: Path) -> None:
    done = run(*kubectl, "apply", "--dry-run=server", "--validate=strict", "-f", path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_charts_objects_are_accepted_in_a_restricted_namespace(kubectl: list[str]) -> None:
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "chart-test",
            "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            },
        },
    }
    done = run(*kubectl, "apply", "-f", "-", stdin=yaml.safe_dump(namespace))
    assert done.returncode == 0, done.stderr
    chart = REPOSITORY / "charts" / "glowplug"
    rendered = run(paths().bin / "helm", "template", "gp", chart, "-n", "chart-test")
    assert rendered.returncode == 0, rendered.stderr
    words = ["apply", "-n", "chart-test", "--dry-run=server", "--validate=strict", "-f", "-"]
    done = run(*kubectl, *words, stdin=rendered.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # a Pod that the restricted standard refuses is a warning here
