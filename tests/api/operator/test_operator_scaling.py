"""Replicas follow demand: from zero and back, across a killed operator and a rolling update."""

import asyncio
import base64
import contextlib
import signal

from glowplug.kube import CONFIGMAPS, LEASES, MODELDEPLOYMENTS, PODS, SERVICES, Client, NotFound

SMALL = {"scaling": {"targetConcurrency": 2, "maxReplicas": 8, "idleAfter": "1s"}}


async def count(kubelet, **labels) -> int:
    return len(await kubelet.pods(**labels))


async def has(kubelet, wanted: int, eventually, **labels):
    async def look():
        pods = await kubelet.pods(**labels)
        return pods if len(pods) == wanted else None

    if wanted:
        return await eventually(look)

    async def none():
        return not await kubelet.pods(**labels)

    return await eventually(none)


async def test_from_zero_to_serving_and_back_to_rest(
    operator, gateway, kubelet, models, eventually, namespace
):
    await operator.start()
    await models.create("m", **SMALL)
    await models.becomes("m", "Ready", "True", "ScaledToZero")
    await models.becomes("m", "TemplateValid", "True", "Accepted")
    await gateway.connected.wait()

    gateway.say(f"{namespace}/m", held=5, arrivals=5)
    pods = await has(kubelet, 3, eventually)
    assert {pod["metadata"]["labels"]["glowplug.dev/slot"] for pod in pods} == {"0", "1", "2"}
    await models.becomes("m", "Ready", "False", "Starting")

    await kubelet.serve_all()
    await models.becomes("m", "Ready", "True", "Serving")

    async def all_serve():
        return (await models.condition("m", "Ready"))["message"] == "3 of 3 replicas serve."

    await eventually(all_serve)
    uids = {pod["metadata"]["uid"]: 1 for pod in pods}
    gateway.say(f"{namespace}/m", held=0, inflight=3, pods=uids)
    await asyncio.sleep(1.5)
    assert await count(kubelet, state="active") >= 2, "what is in flight needs two replicas"

    gateway.say(f"{namespace}/m", inflight=0, completions=5, pods=dict.fromkeys(uids, 0))
    await has(kubelet, 3, eventually, state="draining")
    await asyncio.sleep(1.0)
    assert await count(kubelet) == 3, "a gateway may still send to Pods that it lists"
    gateway.say(f"{namespace}/m", pods={})
    await has(kubelet, 0, eventually)
    await models.becomes("m", "Ready", "True", "ScaledToZero")
    status = await models.status("m")
    assert (status["replicas"], status["readyReplicas"]) == (0, 0)
    assert status["decision"]["desired"] == 0

    await asyncio.sleep(1.0)
    writes = await operator.writes()
    await asyncio.sleep(4.0)
    assert await operator.writes() == writes, "at rest nothing is written but the Lease"


async def test_killed_in_the_middle_of_a_scale_up(
    operator, gateway, kubelet, models, eventually, namespace
):
    process = await operator.start()
    await models.create("m", scaling={"targetConcurrency": 1, "maxReplicas": 80})
    await models.becomes("m", "Ready", "True", "ScaledToZero")
    await gateway.connected.wait()
    gateway.say(f"{namespace}/m", held=80, arrivals=80)
    await eventually(lambda: count(kubelet), every=0.001)
    process.kill()
    await process.wait()
    left_over = await count(kubelet)
    assert 0 < left_over < 80

    gateway.connected.clear()
    await operator.start()
    pods = await has(kubelet, 80, eventually)
    slots = {int(pod["metadata"]["labels"]["glowplug.dev/slot"]) for pod in pods}
    assert slots == set(range(80))
    await asyncio.sleep(1.5)
    assert await count(kubelet) == 80


async def test_hand_over_without_waiting_for_the_lease_to_end(
    operator, client: Client, models, namespace
):
    first = await operator.start()
    second = await operator.start()
    await models.create("m", replicas=1)
    await models.becomes("m", "Ready", "False", "Starting")
    first.send_signal(signal.SIGTERM)
    async with asyncio.timeout(12.0):  # a crashed leader's lease lasts 15 s
        assert await first.wait() == 0
        while True:
            lease = await client.get(LEASES, "glowplug-operator", namespace)
            if lease["spec"]["holderIdentity"]:
                break
            await asyncio.sleep(0.05)
    await models.patch("m", replicas=2)

    async def grown():
        return (await models.status("m")).get("replicas") == 2

    for _ in range(100):
        if await grown():
            break
        await asyncio.sleep(0.1)
    assert await grown()
    assert second.returncode is None


async def test_rolling_update(operator, kubelet, models, eventually):
    await operator.start()
    await models.create("m", replicas=2)
    await has(kubelet, 2, eventually)
    await kubelet.serve_all()
    await models.becomes("m", "Ready", "True", "Serving")
    before = (await models.status("m"))["revision"]

    engine = {"type": "custom", "image": "engine:2", "command": ["serve"]}
    await models.patch("m", engine=engine)

    async def rolled():
        pods = await kubelet.pods(state="active")
        serving = [
            pod
            for pod in pods
            for c in pod["status"].get("conditions") or ()
            if c["type"] == "Ready" and c["status"] == "True"
        ]
        assert len(serving) >= 2, "maxUnavailable is 0"
        assert len(pods) <= 3, "maxSurge is 1"
        new = [p for p in pods if p["metadata"]["labels"]["glowplug.dev/revision"] != before]
        for pod in new:
            with contextlib.suppress(NotFound):
                await kubelet.serve(pod)
        return len(pods) == len(new) == 2

    await eventually(rolled, seconds=30)
    images = {p["spec"]["containers"][0]["image"] for p in await kubelet.pods(state="active")}
    assert images == {"engine:2"}


async def test_a_deleted_model_is_forgotten(
    operator, client, kubelet, models, eventually, namespace
):
    await operator.start()
    await models.create("m", replicas=2)
    await has(kubelet, 2, eventually)
    await client.delete(MODELDEPLOYMENTS, "m", namespace)
    await asyncio.sleep(0.5)
    for pod in await kubelet.pods():  # as the garbage collector would
        await client.delete(PODS, pod["metadata"]["name"], namespace, grace_seconds=0)
    await asyncio.sleep(2.0)
    assert await count(kubelet) == 0


async def test_a_model_made_anew_gets_pods_of_its_own(
    operator, client, kubelet, models, eventually, namespace
):
    await operator.start()
    await models.create("m", replicas=1)
    (old,) = await has(kubelet, 1, eventually)
    await client.delete(MODELDEPLOYMENTS, "m", namespace)
    made = await models.create("m", replicas=1)

    async def owned():
        pods = await kubelet.pods()
        owners = [p["metadata"]["ownerReferences"][0]["uid"] for p in pods]
        return made["metadata"]["uid"] in owners

    await eventually(owned)
    assert old["metadata"]["name"] in [p["metadata"]["name"] for p in await kubelet.pods()]


async def test_the_service_comes_back_and_a_foreign_one_is_left_alone(
    operator, client, models, eventually, namespace
):
    foreign = {
        "metadata": {"name": "taken", "namespace": namespace},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "other"}},
    }
    await client.create(SERVICES, foreign)
    await operator.start()
    await models.create("m")
    await models.create("taken")

    async def service():
        with contextlib.suppress(NotFound):
            return await client.get(SERVICES, "m", namespace)
        return None

    made = await eventually(service)
    assert made["spec"]["clusterIP"] == "None"
    assert made["spec"]["selector"]["glowplug.dev/state"] == "active"
    await client.delete(SERVICES, "m", namespace)
    await eventually(service)
    await models.becomes("taken", "Ready", "True", "ScaledToZero")
    left = await client.get(SERVICES, "taken", namespace)
    assert left["spec"]["selector"] == {"app": "other"}


async def test_the_launcher_is_in_each_namespace_and_every_model_owns_it(
    operator, client, kubelet, models, eventually, namespace
):
    await operator.start()
    made = [await models.create(name, replicas=1) for name in ("a", "b")]
    await has(kubelet, 2, eventually)

    async def owned_by_both():
        with contextlib.suppress(NotFound):
            found = await client.get(CONFIGMAPS, "glowplug-launcher", namespace)
            owners = {owner["uid"] for owner in found["metadata"]["ownerReferences"]}
            return found if owners == {one["metadata"]["uid"] for one in made} else None
        return None

    found = await eventually(owned_by_both)
    assert base64.b64decode(found["binaryData"]["launcher.pyz"]) == b"a zipapp"
