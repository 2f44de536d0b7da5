"""What the real API server answers, as the client passes it on."""

import uuid

import pytest

from glowplug import kube
from glowplug.kube import CONFIGMAPS, PODS, SERVICES


def config_map(name: str, **data: str) -> dict:
    return {"metadata": {"name": name}, "data": data}


async def test_create_get_patch_delete(client, namespace):
    made = await client.create(CONFIGMAPS, config_map("a", k="1"), namespace)
    assert (await client.get(CONFIGMAPS, "a", namespace))["data"] == {"k": "1"}
    patched = await client.patch(CONFIGMAPS, "a", {"data": {"k": "2"}}, namespace)
    assert int(patched["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    operations = [
        {"op": "test", "path": "/data/k", "value": "2"},
        {"op": "replace", "path": "/data/k", "value": "3"},
    ]
    patched = await client.patch(CONFIGMAPS, "a", operations, namespace, kind="json")
    assert patched["data"] == {"k": "3"}
    with pytest.raises(kube.Invalid):
        await client.patch(CONFIGMAPS, "a", operations, namespace, kind="json")
    await client.delete(CONFIGMAPS, "a", namespace)
    await client.delete(CONFIGMAPS, "a", namespace)
    with pytest.raises(kube.NotFound, match='configmaps "a" not found'):
        await client.get(CONFIGMAPS, "a", namespace)


async def test_preconditions_are_kept(client, namespace):
    made = await client.create(CONFIGMAPS, config_map("a"), namespace)
    with pytest.raises(kube.AlreadyExists):
        await client.create(CONFIGMAPS, config_map("a"), namespace)
    await client.patch(CONFIGMAPS, "a", {"data": {"k": "1"}}, namespace)
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    with pytest.raises(kube.Conflict):
        await client.patch(CONFIGMAPS, "a", stale | {"data": {"k": "2"}}, namespace)
    with pytest.raises(kube.Conflict):
        await client.delete(CONFIGMAPS, "a", namespace, uid=str(uuid.uuid4()))
    await client.delete(CONFIGMAPS, "a", namespace, uid=made["metadata"]["uid"])


async def test_a_bad_pod_is_refused_with_a_sentence_that_names_the_field(client, namespace):
    def pod(container: dict) -> dict:
        return {"metadata": {"name": "p"}, "spec": {"containers": [container]}}

    with pytest.raises(kube.Invalid, match=r"spec\.containers\[0\]\.image"):
        await client.create(PODS, pod({"name": "c"}), namespace, dry_run=True)
    bad = pod({"name": "c", "image": "i", "imagee": "j"})
    with pytest.raises(kube.Invalid, match="imagee"):
        await client.create(PODS, bad, namespace, dry_run=True)


async def test_a_dry_run_makes_nothing(client, namespace):
    await client.create(CONFIGMAPS, config_map("a"), namespace, dry_run=True)
    with pytest.raises(kube.NotFound):
        await client.get(CONFIGMAPS, "a", namespace)


async def test_apply_owns_its_fields_only(client, namespace):
    def service(port: int) -> dict:
        spec = {"clusterIP": "None", "ports": [{"name": "http", "port": 80, "targetPort": port}]}
        return {"metadata": {"name": "s", "namespace": namespace}, "spec": spec}

    await client.apply(SERVICES, service(80), field_manager="glowplug")
    labels = {"metadata": {"labels": {"by": "user"}}}
    await client.patch(SERVICES, "s", labels, namespace)
    changed = await client.apply(SERVICES, service(81), field_manager="glowplug")
    assert changed["metadata"]["labels"] == {"by": "user"}
    assert [port["targetPort"] for port in changed["spec"]["ports"]] == [81]
    with pytest.raises(kube.Conflict, match="glowplug"):
        await client.apply(SERVICES, service(82), field_manager="rival", force=False)


async def test_a_long_list_comes_in_pages_and_whole(client, namespace):
    for i in range(520):
        await client.create(CONFIGMAPS, config_map(f"c{i:03}"), namespace)
    pages = [page async for page in client.pages(CONFIGMAPS, namespace)]
    assert [len(page["items"]) for page in pages][:2] == [250, 250]
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
    names = {obj["metadata"]["name"] for obj in await client.list(CONFIGMAPS, namespace)}
    assert {f"c{i:03}" for i in range(520)} <= names
    selected = await client.list(CONFIGMAPS, namespace, field_selector="metadata.name=c007")
    assert [obj["metadata"]["name"] for obj in selected] == ["c007"]
