"""No node on any rung of a pool: each is tried in turn, then the replica waits in peace."""

import asyncio

from glowplug.kube import GPUPOOLS

from .conftest import writes_within

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: no victims."
PATIENCE_S = 6.0  # half a minute, and a minute between two wordings of one condition, in life


async def test_a_replica_without_a_node_climbs_the_ladder_and_comes_back(
    lives, client, kubelet, models, eventually, namespace, warned, monkeypatch
):
    """As the scheduler would refuse it: on each rung for a while, then in peace."""
    monkeypatch.setattr("glowplug.control.ladder.PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr("glowplug.act.status.CALM_S", PATIENCE_S)
    ladder = [
        {"name": name, "dollarsPerGPUHour": 1, "nodeSelector": {"rung": name}}
        for name in ("reserved", "spot")
    ]
    body = {
        "apiVersion": "glowplug.dev/v1alpha1",
        "kind": "GPUPool",
        "metadata": {"name": "main"},
        "spec": {"backend": "static", "default": True, "ladder": ladder},
    }
    await client.create(GPUPOOLS, body)
    fate = await lives()
    await models.create("m", replicas=1)

    async def on(rung: str):
        pods = [p for p in await kubelet.pods() if "deletionTimestamp" not in p["metadata"]]
        at = [p for p in pods if p["spec"]["nodeSelector"] == {"rung": rung}]
        return at[0] if at and at == pods else None

    first = await eventually(lambda: on("reserved"))
    await kubelet.refuse(first, f"reserved: {NO_GPU}")
    await models.becomes("m", "CapacityAvailable", "False", "Unschedulable")
    second = await eventually(lambda: on("spot"))
    assert second["metadata"]["annotations"]["glowplug.dev/rung"] == "spot"
    assert second["metadata"]["name"] != first["metadata"]["name"]
    short = await models.condition("m", "CapacityAvailable")
    assert short["status"] == "False", "it has no node yet"
    assert "rung reserved: reserved: 0/1 nodes" in short["message"]
    assert "tried on rung spot of GPUPool main" in await warned("m", "RungWithoutNode")

    await kubelet.refuse(second, f"spot: {NO_GPU}")
    third = await eventually(lambda: on("reserved"))
    await kubelet.refuse(third, f"reserved: {NO_GPU}")

    async def both():
        found = await models.condition("m", "CapacityAvailable")
        return "rung spot: spot: 0/1 nodes" in found.get("message", "") and found

    short = await eventually(both)
    assert (short["status"], short["reason"]) == ("False", "Unschedulable")
    assert "rung reserved: reserved: 0/1 nodes" in short["message"]
    await asyncio.sleep(2 * PATIENCE_S)
    assert (await on("reserved"))["metadata"]["uid"] == third["metadata"]["uid"]
    assert await writes_within(fate, PATIENCE_S) == []
