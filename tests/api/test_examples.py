"""What the repository tells people to apply, applied to a real API server."""

import subprocess
from collections.abc import Iterator
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
    words = ["template", "gp", chart, "-n", "chart-test", "--set", "grafana.dashboards=true"]
    rendered = run(paths().bin / "helm", *words)
    assert rendered.returncode == 0, rendered.stderr
    words = ["apply", "-n", "chart-test", "--dry-run=server", "--validate=strict", "-f", "-"]
    done = run(*kubectl, *words, stdin=rendered.stdout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # a Pod that the restricted standard refuses is a warning here


@pytest.fixture
def synced(kubectl: list[str]) -> Iterator[str]:
    """A namespace that is empty again after the test; CRDs are everybody's and stay."""
    name = "synced"
    run(*kubectl, "create", "namespace", name)
    yield name
    ours = (
        "modeldeployments.glowplug.dev,gpupools.glowplug.dev,deployments,services,secrets,ingresses"
    )
    done = run(*kubectl, "delete", ours, "--all", "-n", name)
    assert done.returncode == 0, done.stderr


def test_what_was_synced_differs_in_nothing(
    kubectl: list[str], synced: str, tmp_path: Path
) -> None:
    """The examples and the charts as Argo CD applies them: then no diff, and no write."""
    files = [*EXAMPLES, *_rendered(synced, tmp_path)]
    words = ["-n", synced, "--server-side", "--field-manager=argocd-controller"]
    words += ["--force-conflicts", *(word for path in files for word in ("-f", str(path)))]

    first = run(*kubectl, "apply", *words)
    assert first.returncode == 0, first.stderr
    before = _versions(kubectl, synced, files)
    done = run(*kubectl, "diff", *words)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    second = run(*kubectl, "apply", *words)
    assert second.returncode == 0, second.stderr
    assert _versions(kubectl, synced, files) == before, "a second sync wrote something"

    changed = (tmp_path / "glowplug.yaml").read_text().replace("replicas: 2", "replicas: 3")
    (tmp_path / "glowplug.yaml").write_text(changed)
    done = run(*kubectl, "diff", *words)
    assert "replicas: 3" in done.stdout, "a real change does show"


def _rendered(namespace: str, folder: Path) -> Iterator[Path]:
    options = {
        "glowplug-crds": "keep=true",
        "glowplug": "ingress.enabled=true,ingress.host=models.example.com,ingress.className=x,"
        f"networkPolicy.enabled=true,networkPolicy.modelNamespaces={{{namespace}}}",
    }
    for name, values in options.items():
        words = ["template", name, REPOSITORY / "charts" / name, "--skip-crds", "-n", namespace]
        done = run(paths().bin / "helm", *words, "--set", values)
        assert done.returncode == 0, done.stderr
        path = folder / f"{name}.yaml"
        path.write_text(done.stdout)
        yield path


def _versions(kubectl: list[str], namespace: str, files: list[Path]) -> str:
    words = [word for path in files for word in ("-f", str(path))]
    shown = (
        "jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{'\\n'}{end}"
    )
    done = run(*kubectl, "get", "-n", namespace, *words, "-o", shown)
    assert done.returncode == 0, done.stderr
    assert "Deployment/glowplug-gateway" in done.stdout
    return done.stdout
