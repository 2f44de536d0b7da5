"""What goes wrong is said in a condition and an event, and stays the affair of one model."""

import asyncio
import copy
import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from glowplug.kube import CRDS, EVENTS, GPUPOOLS, MODELDEPLOYMENTS

REPOSITORY = Path(__file__).parents[3]
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: no victims."


async def pods_of(kubelet, eventually, wanted: int):
    async def look():
        pods = await kubelet.pods()
        return pods if len(pods) == wanted else None

    return await eventually(look)


async def notes(client, namespace: str, reason: str) -> list[str]:
    events = await client.list(EVENTS, namespace)
    return [event["note"] for event in events if event["reason"] == reason]


@pytest.fixture
async def unchecked(client):
    """The CRD as an older release might have had it: no schema, no rules; put back afterwards."""
    path = next(REPOSITORY.glob("crds/*modeldeployments.yaml"))
    crd = yaml.safe_load(path.read_text())
    loose = copy.deepcopy(crd)
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for version in loose["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"] = {
            "type": "object",
            "properties": {"spec": anything, "status": anything},
        }
    await client.apply(CRDS, loose, field_manager="tests")
    yield
    await client.apply(CRDS, crd, field_manager="tests")


async def test_bad_objects_beside_good_ones(
    operator, client, unchecked, kubelet, models, eventually, namespace
):
    bad = {"engine": {"type": "warp"}, "scaling": {"idleAfter": "soon"}}

    async def written():
        try:
            await models.create("bad-0", **bad)
        except Exception:
            return False
        return True

    await eventually(written)  # the looser schema takes a moment to be served
    for i in range(1, 10):
        await models.create(f"bad-{i}", **bad)
    await models.create("good", replicas=1)
    await operator.start()
    await pods_of(kubelet, eventually, 1)
    for i in range(10):
        ready = await models.becomes(f"bad-{i}", "Ready", "False", "InvalidSpec")
    assert "spec.engine.type" in ready["message"]
    assert "spec.scaling.idleAfter" in ready["message"]
    await models.becomes("good", "Ready", "False", "Starting")

    await client.delete(MODELDEPLOYMENTS, "bad-0", namespace)
    await models.create("bad-0", replicas=1)
    await models.becomes("bad-0", "Ready", "False", "Starting")
    await asyncio.sleep(1.0)
    writes = await operator.writes()
    await asyncio.sleep(2.0)
    assert await operator.writes() == writes


async def test_a_refused_template_keeps_the_servers_own_sentence(
    operator, client, kubelet, models, eventually, namespace
):
    await operator.start()
    await models.create("m", template={"spec": {"containers": [{"name": "engine", "portz": 1}]}})
    refused = await models.becomes("m", "TemplateValid", "False", "Refused")
    assert 'unknown field "spec.containers[0].portz"' in refused["message"]
    await models.becomes("m", "Ready", "False", "TemplateInvalid")
    assert await kubelet.pods() == []
    assert await notes(client, namespace, "Refused")

    await models.patch("m", template=None, replicas=1)
    await pods_of(kubelet, eventually, 1)
    await models.becomes("m", "TemplateValid", "True", "Accepted")

    await kubelet.serve_all()
    await models.becomes("m", "Ready", "True", "Serving")
    await models.patch("m", template={"spec": {"containers": [{"name": "engine", "image": ""}]}})
    await models.becomes("m", "TemplateValid", "False", "Refused")
    assert len(await kubelet.pods(state="active")) == 1, "the old replica serves on"


async def test_no_node_is_named_with_its_resource_and_how_many_wait(
    operator, client, kubelet, models, eventually, namespace
):
    await operator.start()
    await models.create("m", replicas=3)
    first, *others = await pods_of(kubelet, eventually, 3)
    await kubelet.serve(first)
    for pod in others:
        await kubelet.refuse(pod, NO_GPU)

    async def both():
        found = await models.condition("m", "CapacityAvailable")
        return found if found.get("message", "").startswith("2 of 3") else None

    short = await eventually(both)
    assert short["status"] == "False"
    assert short["message"] == (
        "2 of 3 replicas have no node: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    )
    ready = await models.condition("m", "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "Serving")
    assert await notes(client, namespace, "Unschedulable")

    await models.patch("m", replicas=1)
    (left,) = await pods_of(kubelet, eventually, 1)
    assert left["metadata"]["name"] == first["metadata"]["name"], "waiting Pods go first"
    await models.becomes("m", "CapacityAvailable", "True", "Sufficient")


@pytest.mark.parametrize(
    ("container", "reason", "told"),
    [
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}},
            "ImagePullFailed",
            "no such image",
        ),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 3, "message": "CUDA is unhappy"}},
                "restartCount": 4,
            },
            "EngineExited",
            "exit code 3 after 4 restarts: CUDA is unhappy",
        ),
        (
            {
                "state": {
                    "waiting": {
                        "reason": "CreateContainerConfigError",
                        "message": 'secret "read" not found',
                    }
                }
            },
            "ContainerConfigError",
            'secret "read" not found',
        ),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                "restartCount": 1,
            },
            "OutOfMemory",
            "engine.resources.limits.memory",
        ),
    ],
    ids=["image", "crash", "secret", "memory"],
)
async def test_what_keeps_the_only_replica_from_serving(
    operator, kubelet, models, eventually, container, reason, told
):
    await operator.start()
    await models.create("m", replicas=1)
    (pod,) = await pods_of(kubelet, eventually, 1)
    status = {
        "name": "engine",
        "image": "engine:1",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        **container,
    }
    await kubelet.status(pod, phase="Pending", containerStatuses=[status])
    found = await models.becomes("m", "Ready", "False", reason)
    assert told in found["message"]
    assert pod["metadata"]["name"] in found["message"]


async def test_a_quota_is_a_matter_of_capacity(operator, client, kubelet, models, namespace):
    from glowplug.kube import Resource

    quotas = Resource("", "v1", "resourcequotas", kind="ResourceQuota")
    body = {
        "metadata": {"name": "few", "namespace": namespace},
        "spec": {"hard": {"pods": "1"}},
    }
    await client.create(quotas, body)
    status = {"status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}}
    await client.patch(quotas, "few", status, namespace, subresource="status")
    await operator.start()
    await models.create("m", replicas=3)
    short = await models.becomes("m", "CapacityAvailable", "False", "QuotaExceeded")
    assert "exceeded quota: few" in short["message"]
    assert len(await kubelet.pods()) == 1


class TestPools:
    async def pool(self, client, name: str, **spec) -> None:
        await client.create(
            GPUPOOLS,
            {
                "apiVersion": "glowplug.dev/v1alpha1",
                "kind": "GPUPool",
                "metadata": {"name": name},
                "spec": {"backend": "static", **spec},
            },
        )

    async def test_ladder_budget_and_price(self, operator, client, kubelet, models, eventually):
        ladder = [
            {
                "name": "reserved",
                "type": "reserved",
                "dollarsPerGPUHour": 1.25,
                "max": 2,
                "nodeSelector": {"rung": "reserved"},
            },
            {"name": "spot", "type": "spot", "dollarsPerGPUHour": 0.5},
        ]
        await self.pool(client, "main", default=True, budget=3, ladder=ladder)
        await operator.start()
        await models.create("m", replicas=5)
        pods = await pods_of(kubelet, eventually, 3)
        rungs = sorted(pod["metadata"]["annotations"]["glowplug.dev/rung"] for pod in pods)
        assert rungs == ["reserved", "reserved", "spot"]
        limited = await models.becomes("m", "ScalingLimited", "True", "Limited")
        assert "the budget of GPUPool main (3 GPUs) has room for 3" in limited["message"]

    async def test_a_replica_without_a_node_climbs_the_ladder_and_comes_back(
        self, operator, client, kubelet, models, eventually, namespace
    ):
        """As the scheduler would refuse it: on each rung for half a minute, then in peace."""
        ladder = [
            {"name": name, "dollarsPerGPUHour": 1, "nodeSelector": {"rung": name}}
            for name in ("reserved", "spot")
        ]
        await self.pool(client, "main", default=True, ladder=ladder)
        await operator.start()
        await models.create("m", replicas=1)

        async def on(rung: str):
            pods = [p for p in await kubelet.pods() if "deletionTimestamp" not in p["metadata"]]
            at = [p for p in pods if p["spec"]["nodeSelector"] == {"rung": rung}]
            return at[0] if at == pods else None

        first = await eventually(lambda: on("reserved"))
        await kubelet.refuse(first, f"reserved: {NO_GPU}")
        await models.becomes("m", "CapacityAvailable", "False", "Unschedulable")
        second = await eventually(lambda: on("spot"), seconds=45)
        assert second["metadata"]["annotations"]["glowplug.dev/rung"] == "spot"
        assert second["metadata"]["name"] != first["metadata"]["name"]
        short = await models.condition("m", "CapacityAvailable")
        assert short["status"] == "False", "it has no node yet"
        assert "rung reserved: reserved: 0/1 nodes" in short["message"]
        (told,) = await notes(client, namespace, "RungWithoutNode")
        assert "tried on rung spot of GPUPool main" in told

        await kubelet.refuse(second, f"spot: {NO_GPU}")
        third = await eventually(lambda: on("reserved"), seconds=45)
        await kubelet.refuse(third, f"reserved: {NO_GPU}")

        async def both():
            found = await models.condition("m", "CapacityAvailable")
            return "rung spot: spot: 0/1 nodes" in found.get("message", "") and found

        short = await eventually(both, seconds=75)  # a sentence is rewritten once a minute
        assert (short["status"], short["reason"]) == ("False", "Unschedulable")
        assert "rung reserved: reserved: 0/1 nodes" in short["message"]
        created = datetime.fromisoformat(third["metadata"]["creationTimestamp"]).timestamp()
        await asyncio.sleep(max(0.0, created + 35 - time.time()))
        assert (await on("reserved"))["metadata"]["uid"] == third["metadata"]["uid"]

    async def test_a_second_default_says_so(self, operator, client, eventually):
        await self.pool(client, "first", default=True)
        await asyncio.sleep(1.1)  # creation times have whole seconds
        await self.pool(client, "second", default=True)
        await operator.start()

        async def ready(name: str):
            pool = await client.get(GPUPOOLS, name)
            return (pool.get("status") or {}).get("conditions")

        (first,) = await eventually(lambda: ready("first"))
        (second,) = await eventually(lambda: ready("second"))
        assert first["status"] == "True"
        assert (second["status"], second["reason"]) == ("False", "SecondDefault")
        assert "GPUPool first is the default already" in second["message"]

    async def test_a_pool_that_is_not_open_takes_nobody(
        self, operator, client, kubelet, models, eventually
    ):
        await self.pool(client, "closed", allowedNamespaces=["elsewhere"])
        await operator.start()
        await models.create("m", replicas=1, gpu={"pool": "closed"})
        await models.create("n", replicas=1, gpu={"pool": "missing"})
        await models.create("o", replicas=1)
        told = await models.becomes("m", "CapacityAvailable", "False", "PoolNotAllowed")
        assert models.namespace in told["message"]
        await models.becomes("n", "CapacityAvailable", "False", "PoolNotFound")
        await models.becomes("o", "CapacityAvailable", "False", "NoDefaultPool")
        assert await kubelet.pods() == []
        await self.pool(client, "missing")
        await pods_of(kubelet, eventually, 1)
