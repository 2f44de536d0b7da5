"""The node's cache on the real node: a restricted namespace, a second start without the store."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import requests

from cluster.config import paths
from stack import processes
from stack.ask import ask
from stack.install import CHART, RELEASE, helm, values
from stack.stack import EXAMPLE, Stack

FRANCE = "What is the capital of France?"
CACHES, TENANT = "glowplug-cache", "restricted"
FOLDER = "/var/lib/glowplug-cache-e2e"
STANDARD = "pod-security.kubernetes.io/enforce"
ENABLED = {
    "cache.enabled": "true",
    "cache.createNamespace": "false",
    "cache.path": FOLDER,
    "cache.budget": "2Gi",
    "cache.resources.requests.cpu": "10m",
}
ONE_EACH = {"operator.replicas": "1", "gateway.replicas": "1"}


@pytest.fixture
async def tenant(stack: Stack) -> AsyncIterator[Stack]:
    """The release with its cache, seen from a restricted namespace; as it was after the test."""
    where = paths()
    for name, standard in ((CACHES, "privileged"), (TENANT, "restricted")):
        labels = {STANDARD: standard}
        stack.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels},
            }
        )
        stack.cluster.kubectl("-n", name, "apply", "-f", str(EXAMPLE / "secret.yaml"))
    upgrade = ("upgrade", RELEASE, CHART, "--skip-crds", "--force-conflicts")
    try:
        helm(where, *upgrade, values=values(where) | ONE_EACH | ENABLED)
        seen = replace(stack, namespace=TENANT)
        yield seen
        await seen.delete_all()
    finally:
        helm(where, *upgrade, values=values(where) | ONE_EACH)
        stack.kubectl("delete", "namespace", CACHES, TENANT, "--ignore-not-found")
        shutil.rmtree(FOLDER, ignore_errors=True)


def daemon(stack: Stack) -> dict:
    """The cache's only Pod."""
    [pod] = stack.find("pods", "app.kubernetes.io/component=cache", CACHES)
    return pod


def figures(stack: Stack) -> dict[str, float]:
    """The daemon's metrics."""
    url = f"http://{daemon(stack)['status']['podIP']}:9421/metrics"
    lines = requests.get(url, timeout=10).text.splitlines()
    pairs = (line.split() for line in lines if not line.startswith("#"))
    return {name.removeprefix("glowplug_cache_"): float(value) for name, value in pairs}


def restricted_smollm2(stack: Stack, name: str) -> dict:
    body = stack.smollm2(name)
    standard = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    body["spec"]["template"] = {"spec": {"securityContext": standard}}
    return body


async def to_zero(stack: Stack, name: str) -> None:
    await stack.until(lambda: stack.pods(name) == [], 90)


@pytest.mark.timeout(900)
async def test_a_restricted_namespace_starts_from_the_nodes_cache_and_without_it(
    tenant: Stack,
) -> None:
    name = tenant.deploy(restricted_smollm2(tenant, "cached"))
    first = await ask(tenant.gateway_url, name, FRANCE)
    assert first.finished, first
    await tenant.until(lambda: tenant.condition(name, "SnapshotReady", status="True"), 120)
    size = tenant.status(name)["snapshot"]["bytes"]
    await to_zero(tenant, name)

    through = await ask(tenant.gateway_url, name, FRANCE)

    assert through.text == first.text
    [pod] = tenant.pods(name)
    assert not [v for v in pod["spec"]["volumes"] if "hostPath" in v]
    launch = pod["spec"]["containers"][0]["env"]
    config = next(json.loads(one["value"]) for one in launch if one["name"] == "GLOWPLUG_LAUNCH")
    assert config["restore"]["cache"] == f"http://glowplug-cache.{CACHES}"
    before = figures(tenant)
    assert before["from_store_bytes_total"] == pytest.approx(size, rel=0.01)
    assert before["to_pods_bytes_total"] >= size
    await to_zero(tenant, name)

    again = await ask(tenant.gateway_url, name, FRANCE)

    assert again.text == first.text
    after = figures(tenant)
    assert after["from_store_bytes_total"] == before["from_store_bytes_total"]
    assert after["misses_total"] == before["misses_total"]
    assert after["to_pods_bytes_total"] >= before["to_pods_bytes_total"] + size
    await tenant.until(lambda: last_path(tenant, name) == "cached", 30)
    await to_zero(tenant, name)

    uid = daemon(tenant)["metadata"]["uid"]
    asking = asyncio.create_task(ask(tenant.gateway_url, name, FRANCE))
    await asyncio.to_thread(kill_in_the_middle, tenant, uid, after["to_pods_bytes_total"], size)
    without = await asking

    assert without.finished, without
    assert without.text == first.text


def last_path(stack: Stack, name: str) -> str:
    last = stack.status(name).get("coldStart", {}).get("last", {})
    return str(last.get("path"))


def kill_in_the_middle(stack: Stack, uid: str, sent: float, size: int) -> None:
    """SIGKILL the daemon when the next restore has begun to read from it."""
    url = f"http://{daemon(stack)['status']['podIP']}:9421/metrics"
    name = "\nglowplug_cache_to_pods_bytes_total "
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        text = requests.get(url, timeout=10).text
        now = float(text[text.index(name) + len(name) :].split()[0])
        if now > sent:
            processes.kill(processes.of_pod(uid, "glowplug-snapshotter"))
            assert now < sent + size, "it had read everything before"
            return
        time.sleep(0.005)
    raise AssertionError("no restore read from the cache within 60 s")
