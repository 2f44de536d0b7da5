"""The node caches' own reader of EndpointSlices against the real API server, by its own rights."""

import base64
import json
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from cluster.config import REPOSITORY, paths
from glowplug_snapshotter.cache import discovery
from glowplug_snapshotter.cache.discovery import Sliced

SERVICE = "glowplug-cache-peers"
ACCOUNT = "glowplug-cache"
Kubectl = Callable[..., str]


def run(*words: object, stdin: str | None = None) -> str:
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def kubectl(apiserver: Path, namespace: str) -> Kubectl:
    program = (paths().bin / "kubectl", "--kubeconfig", apiserver, "-n", namespace)

    def call(*words: str, body: dict | None = None) -> str:
        return run(*program, *words, stdin=None if body is None else json.dumps(body))

    return call


def rights(namespace: str) -> list[dict]:
    """The daemon's account, its Role and their binding, as the chart has them."""
    chart = REPOSITORY / "charts" / "glowplug"
    settings = f"cache.enabled=true,store.url=s3://b/p,cache.namespace={namespace}"
    text = run(paths().bin / "helm", "template", "gp", chart, "--set", settings)
    kinds = ("ServiceAccount", "Role", "RoleBinding")
    return [
        body
        for body in yaml.safe_load_all(text)
        if body and body["kind"] in kinds and body["metadata"]["name"] == ACCOUNT
    ]


def endpoint_slice(name: str, *addresses: str, service: str = SERVICE) -> dict:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "peers", "port": 9421}],
        "endpoints": [{"addresses": [a], "conditions": {"ready": True}} for a in addresses],
    }


def test_peers_are_followed_as_they_come_and_go(
    apiserver: Path,
    namespace: str,
    kubectl: Kubectl,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for body in rights(namespace):
        kubectl("apply", "-f", "-", body=body)
    cluster = yaml.safe_load(apiserver.read_text())["clusters"][0]["cluster"]
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    (tmp_path / "token").write_text(kubectl("create", "token", ACCOUNT))
    monkeypatch.setattr(discovery, "ACCOUNT", tmp_path)
    kubectl("apply", "-f", "-", body=endpoint_slice("a", "198.18.0.7"))
    kubectl("apply", "-f", "-", body=endpoint_slice("c", "198.18.0.99", service="another"))
    server = urlsplit(cluster["server"])
    env = {"KUBERNETES_SERVICE_HOST": server.hostname, "KUBERNETES_SERVICE_PORT": str(server.port)}

    sliced = Sliced(namespace, SERVICE, env)
    sliced.start()

    sees(sliced, {"198.18.0.7:9421"})
    kubectl("apply", "-f", "-", body=endpoint_slice("b", "198.18.0.8", "198.18.0.9"))
    sees(sliced, {"198.18.0.7:9421", "198.18.0.8:9421", "198.18.0.9:9421"})
    kubectl("apply", "-f", "-", body=endpoint_slice("b", "198.18.0.9"))
    sees(sliced, {"198.18.0.7:9421", "198.18.0.9:9421"})
    kubectl("delete", "endpointslice", "a")
    sees(sliced, {"198.18.0.9:9421"})


def sees(sliced: Sliced, expected: Collection[str]) -> None:
    deadline = time.monotonic() + 60
    while sliced.addresses() != expected:
        assert time.monotonic() < deadline, sliced.addresses()
        time.sleep(0.02)
