"""What goes wrong is said in a condition and an event, and stays the affair of one model."""

import asyncio

from glowplug.kube import EVENTS, GPUPOOLS

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: no victims."


async def pods_of(kubelet, eventually, wanted: int):
    async def look():
        pods = await kubelet.pods()
        return pods if len(pods) == wanted else None

    return await eventually(look)


async def notes(client, namespace: str, reason: str) -> list[str]:
    events = await client.list(EVENTS, namespace)
    return [event["note"] for event in events if event["reason"] == reason]


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
