"""Puts Glowplug, its storage and the example on the local cluster; each step is idempotent."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import requests

from cluster import images as image_builder
from cluster import lifecycle, services
from cluster.client import Cluster
from cluster.commands import console, run
from cluster.config import NODE_IP, PROMETHEUS_PORT, S3_PORT, ClusterError, Paths, paths
from stack import storage
from stack.stack import EXAMPLE, REPOSITORY, Stack

SYSTEM, NAMESPACE, RELEASE = "glowplug-system", "demo", "glowplug"
MODELS, STORE = "models", "glowplug"
S3_ENDPOINT = f"http://{NODE_IP}:{S3_PORT}"
PROMETHEUS_URL = f"http://{NODE_IP}:{PROMETHEUS_PORT}"
SECRET = "glowplug-store"
CHART = REPOSITORY / "charts" / "glowplug"


def install() -> Stack:
    """Bring up cluster, store, Prometheus, images, model and release, and return the stack."""
    where = paths()
    cluster = Cluster.up()
    lifecycle.images(where, list(image_builder.IMAGES))
    services.up(where)
    _upload_model()
    _release(where)
    discovery = f"http://{service_ip(where, 'glowplug-operator')}:8080/sd/engines"
    gateway = f"http://{service_ip(where, 'glowplug-gateway')}"
    # A Service answers about a second after its Pods are Ready, when kube-proxy has heard of them.
    for url in (discovery, f"{gateway}/v1/models"):
        _wait_until_it_answers(url)
    services.scrape(where, discovery)
    _namespace(where)
    return Stack(
        cluster=cluster,
        gateway_url=gateway,
        prometheus_url=PROMETHEUS_URL,
        s3_endpoint=S3_ENDPOINT,
        namespace=NAMESPACE,
        system=SYSTEM,
    )


def _upload_model() -> None:
    """Make the example's safetensors folder and upload it, with the bucket for snapshots."""
    folder = _example("model").ensure(console=console)
    client = storage.connect(S3_ENDPOINT, services.ACCESS_KEY, services.SECRET_KEY)
    storage.ensure_bucket(client, MODELS)
    storage.ensure_bucket(client, STORE)
    storage.upload_folder(client, folder, MODELS, "smollm2-135m-instruct")


def _example(name: str) -> ModuleType:
    """Load a module of the example's folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"smollm2_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _release(where: Paths) -> None:
    """`helm upgrade --install` of the chart, with this tree's images."""
    # Two cores hold the whole cluster: one of each is enough, and nothing waits for the CPU.
    one_each = {"operator.replicas": "1", "gateway.replicas": "1"}
    with console.status("helm upgrade --install glowplug"):
        # helm installs CRDs but never upgrades them, so a changed tree needs kubectl.
        crds = ["-f", str(REPOSITORY / "crds")]
        lifecycle.kubectl(where, "apply", "--server-side", "--force-conflicts", *crds)
        words = ("upgrade", "--install", RELEASE, CHART, "--create-namespace", "--skip-crds")
        # A test that was killed may have left Deployments that kubectl scaled, which are its then.
        helm(where, *words, "--force-conflicts", values=values(where) | one_each)
    console.print("[green]✓[/] Glowplug installed")


def values(where: Paths) -> dict[str, str]:
    """What the chart is told here, all else being its defaults."""
    return {
        "image.tag": _tag(where, "operator"),
        "snapshotter.image.tag": _tag(where, "snapshotter"),
        "prometheus.url": PROMETHEUS_URL,
        "store.url": f"s3://{STORE}/snapshots",
        "store.endpoint": S3_ENDPOINT,
        "store.secretName": SECRET,
    }


def helm(where: Paths, *words: str | Path, values: Mapping[str, str] | None = None) -> str:
    """Run helm in the release's namespace, wait for what it changes, and return what it said."""
    settings = [
        word for key, value in (values or {}).items() for word in ("--set", f"{key}={value}")
    ]
    wait = ["--namespace", SYSTEM, "--wait", "--timeout", "5m"]
    argv = [where.bin / "helm", "--kubeconfig", where.kubeconfig, *words, *wait, *settings]
    return run(argv, timeout=360)


def _tag(where: Paths, name: str) -> str:
    """The tag that names the image's content, so that a changed image rolls its Pods."""
    return image_builder.image_id(where, image_builder.IMAGES[name].tag)[:12]


def _namespace(where: Paths) -> None:
    """The models' namespace with the store's Secret, and the pool."""
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    lifecycle.kubectl(where, "apply", "-f", "-", stdin=json.dumps(body))
    for file in ("secret.yaml", "pool.yaml"):
        lifecycle.kubectl(where, "-n", NAMESPACE, "apply", "-f", str(EXAMPLE / file))


def _wait_until_it_answers(url: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            requests.get(url, timeout=2).raise_for_status()
        except requests.RequestException as error:
            if time.monotonic() > deadline:
                told = f"{url} does not answer: {error}. See its Pod's log with kubectl."
                raise ClusterError(told) from error
            time.sleep(0.1)
        else:
            return


def service_ip(where: Paths, name: str) -> str:
    """ClusterIP of a Service of the release: the host reaches it as a Pod would."""
    words = ["-n", SYSTEM, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}"]
    return lifecycle.kubectl(where, *words).strip()
