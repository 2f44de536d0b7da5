"""What the API server does to an operator: refuses, restarts, and keeps objects of another time."""

import asyncio
import copy
from pathlib import Path

import pytest
import yaml

from glowplug.kube import (
    CRDS,
    MODELDEPLOYMENTS,
    NAMESPACES,
    PODS,
    ApiError,
    Resource,
)

from .conftest import writes_within

REPOSITORY = Path(__file__).parents[4]
QUOTAS = Resource("", "v1", "resourcequotas", kind="ResourceQuota")


async def pods_of(kubelet, eventually, wanted: int, **labels: str):
    async def look():
        pods = await kubelet.pods(**labels)
        return pods if len(pods) == wanted else None

    return await eventually(look)


@pytest.mark.parametrize("what", ["pods", "services", "configmaps"])
async def test_a_quota_stops_one_namespace_only(
    lives, client, kubelet, models, neighbour, eventually, namespace, what
):
    elsewhere = f"{namespace}-full"
    await client.create(NAMESPACES, {"metadata": {"name": elsewhere}})
    hard = {"pods": "1"} if what == "pods" else {f"count/{what}": "0"}
    quota = {"metadata": {"name": "few", "namespace": elsewhere}, "spec": {"hard": hard}}
    await client.create(QUOTAS, quota)
    status = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
    await client.patch(QUOTAS, "few", status, elsewhere, subresource="status")
    fate = await lives()
    await neighbour.serve()
    before = await neighbour.versions()
    other = type(models)(client, elsewhere)
    await other.create("m", replicas=3)
    if what == "services":
        await other.becomes("m", "Ready", "False", "Starting")
    else:
        short = await other.becomes("m", "CapacityAvailable", "False", "QuotaExceeded")
        assert "exceeded quota: few" in short["message"]
    if what != "pods":
        assert len(await client.list(PODS, elsewhere)) == 3, "Pods do not wait for their Service"
    await asyncio.sleep(2.0)
    written = await writes_within(fate, 4.0)
    assert len(written) <= 12, written
    assert not [write for write in written if "status" in write], "nothing new is to be said"
    assert await neighbour.versions() == before


async def test_a_namespace_that_is_being_deleted(
    lives, client, kubelet, models, neighbour, eventually, namespace
):
    """Without a namespace controller it stays that way for as long as the test looks."""
    elsewhere = f"{namespace}-ending"
    await client.create(NAMESPACES, {"metadata": {"name": elsewhere}})
    fate = await lives()
    await neighbour.serve()
    other = type(models)(client, elsewhere)
    await other.create("m")
    await other.becomes("m", "Ready", "True", "ScaledToZero")
    before = await neighbour.versions()
    await client.delete(NAMESPACES, elsewhere)
    await other.patch("m", replicas=2)
    told = await other.becomes("m", "CapacityAvailable", "False", "NamespaceTerminating")
    assert elsewhere in told["message"]
    assert (await other.condition("m", "TemplateValid"))["status"] != "False"
    await asyncio.sleep(2.0)
    written = await writes_within(fate, 4.0)
    assert len(written) <= 12, written
    assert await neighbour.versions() == before


async def test_a_pod_that_lost_its_labels_keeps_its_name(
    lives, client, kubelet, models, eventually, namespace
):
    """Somebody takes a replica out to look at it: it is replaced, and left alone."""
    fate = await lives()
    await models.create("m", replicas=1)
    (pod,) = await pods_of(kubelet, eventually, 1)
    name = pod["metadata"]["name"]
    labels = dict.fromkeys(pod["metadata"]["labels"]) | {"quarantine": "yes"}
    await client.patch(PODS, name, {"metadata": {"labels": labels}}, namespace)
    (replacement,) = await pods_of(kubelet, eventually, 1)
    assert replacement["metadata"]["name"] != name
    await asyncio.sleep(1.0)
    assert await writes_within(fate, 2.0) == []
    assert await client.get(PODS, name, namespace)


BAD: list[dict] = [
    {"engine": {"type": "warp"}},
    {"scaling": {"idleAfter": "soon"}},
    {"replicas": 5000},
    {"model": None},
    {"gpu": {"count": 10**9}},
    {"template": []},
    {"update": {"maxSurge": "lots"}},
    {"model": {"source": 7}},
    {"engine": "vllm"},
    {"scaling": {"schedule": [{"cron": "whenever"}]}},
]
MUTE = 4
"""So many, the last, break the CRD's rules by their types: the API server takes no status then."""
BAD_STATUS = [None, {"conditions": "fine"}, {"conditions": [3]}, {"decision": 7, "tiers": []}]


async def test_fifty_objects_of_an_older_crd_beside_good_ones(
    lives, client, models, neighbour, eventually, warned, namespace
):
    """Written while the CRD had no schema; then the strict one is applied over them."""
    path = next(REPOSITORY.glob("crds/*modeldeployments.yaml"))
    crd = yaml.safe_load(path.read_text())
    loose = copy.deepcopy(crd)
    anything = {"x-kubernetes-preserve-unknown-fields": True}
    for version in loose["spec"]["versions"]:
        schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
        version["schema"]["openAPIV3Schema"] = schema
    await client.apply(CRDS, loose, field_manager="tests")

    async def written() -> bool:
        try:
            await models.create("bad-0", **BAD[0])
        except ApiError:
            return False
        return True

    try:
        await eventually(written)  # the looser schema takes a moment to be served
        for i in range(1, 50):
            await models.create(f"bad-{i}", **BAD[i % len(BAD)])
        for i, status in enumerate(BAD_STATUS):
            body = {"status": status}
            await client.patch(MODELDEPLOYMENTS, f"bad-{i}", body, namespace, subresource="status")
    finally:
        await client.apply(CRDS, crd, field_manager="tests")

    async def strict() -> bool:
        try:
            await models.create("refused", **BAD[0])
        except ApiError:
            return True
        await client.delete(MODELDEPLOYMENTS, "refused", namespace)
        return False

    await eventually(strict)
    fate = await lives()
    await neighbour.serve()
    before = await neighbour.versions()
    for i in range(50):
        if i % len(BAD) < len(BAD) - MUTE:
            await models.becomes(f"bad-{i}", "Ready", "False", "InvalidSpec")
        assert "spec." in await warned(f"bad-{i}", "InvalidSpec")
    assert await neighbour.versions() == before
    await asyncio.sleep(2.0)
    assert await writes_within(fate, 4.0) == []
    await client.delete(MODELDEPLOYMENTS, "bad-0", namespace)
    await models.create("bad-0", replicas=1)
    await models.becomes("bad-0", "Ready", "False", "Starting")
