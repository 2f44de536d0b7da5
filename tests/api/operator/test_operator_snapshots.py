"""A snapshot is taken as soon as a model names its source; its Job's Pod tells the result."""

import json

import pytest

from glowplug.kube import JOBS, MODELSNAPSHOTS, PODS, Client

STORE = ("--store-url", "s3://snapshots/x", "--store-endpoint", "http://s3:8333")
SECRET = ("--store-secret", "glowplug-store")


async def job_of(client: Client, namespace: str):
    jobs = await client.list(JOBS, namespace)
    return jobs[0] if jobs else None


async def run_job(client: Client, job: dict, namespace: str, phase: str, state: dict) -> None:
    """What the Job controller and kubelet would do: a Pod of the Job, and how it fares."""
    template = job["spec"]["template"]
    name = f"{job['metadata']['name']}-pod"
    labels = template["metadata"]["labels"] | {
        "batch.kubernetes.io/job-name": job["metadata"]["name"]
    }
    body = {"metadata": {"name": name, "namespace": namespace, "labels": labels}}
    await client.create(PODS, {**body, "spec": template["spec"]})
    container = {
        "name": "snapshot",
        "image": "snapshotter",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }
    status = {"phase": phase, "containerStatuses": [container]}
    await client.patch(PODS, name, {"status": status}, namespace, subresource="status")


async def serving(kubelet, models, eventually) -> None:
    await models.create(
        "m", replicas=1, model={"source": "s3://models/m", "secretRef": {"name": "r"}}
    )

    async def served():
        await kubelet.serve_all()
        return (await models.status("m")).get("readyReplicas") == 1

    await eventually(served)


async def test_taken_by_a_job_and_used_by_new_replicas(
    operator, client, kubelet, models, eventually, namespace
):
    await operator.start(*STORE, *SECRET)
    await serving(kubelet, models, eventually)
    job = await eventually(lambda: job_of(client, namespace))
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["args"][:5] == [
        "take",
        "--source",
        "s3://models/m",
        "--to",
        "s3://snapshots/x",
    ]
    assert container["envFrom"] == [
        {"secretRef": {"name": "r"}},
        {"prefix": "GLOWPLUG_STORE_", "secretRef": {"name": "glowplug-store"}},
    ]
    await models.becomes("m", "SnapshotReady", "False", "Taking")

    result = {
        "event": "result",
        "digest": "blake3:" + "ab" * 32,
        "bytes": 1000,
        "files": 3,
        "manifest": "s3://snapshots/x/manifests/abab/manifest.json",
    }
    ended = {"terminated": {"exitCode": 0, "message": json.dumps(result)}}
    await run_job(client, job, namespace, "Succeeded", ended)
    await models.becomes("m", "SnapshotReady", "True", "Taken")
    (snapshot,) = await client.list(MODELSNAPSHOTS, namespace)
    assert snapshot["status"]["digest"] == result["digest"]
    assert snapshot["metadata"]["ownerReferences"][0]["name"] == "m"

    before = (await models.status("m"))["revision"]
    await models.patch("m", replicas=2)

    async def second():
        pods = await kubelet.pods()
        return pods if len(pods) == 2 else None

    pods = await eventually(second)
    launches = [
        json.loads(env["value"])
        for pod in pods
        for env in pod["spec"]["containers"][0]["env"]
        if env["name"] == "GLOWPLUG_LAUNCH"
    ]
    assert sorted(launch["restore"]["kind"] for launch in launches) == ["snapshot", "source"]
    status = await models.status("m")
    assert status["revision"] == before, "a snapshot does not roll replicas"
    assert status["snapshot"]["bytes"] == 1000


@pytest.mark.parametrize(
    ("terminated", "reason", "told"),
    [
        (
            {
                "exitCode": 1,
                "message": json.dumps(
                    {
                        "event": "error",
                        "reason": "Forbidden",
                        "message": "bucket snapshots refused the write of manifests/x",
                    }
                ),
            },
            "Forbidden",
            "bucket snapshots refused",
        ),
        ({"exitCode": 137, "reason": "OOMKilled"}, "TakeFailed", "exit code 137"),
    ],
)
async def test_a_failure_names_what_failed_and_replicas_serve_on(
    operator, client, kubelet, models, eventually, namespace, terminated, reason, told
):
    await operator.start(*STORE)
    await serving(kubelet, models, eventually)
    job = await eventually(lambda: job_of(client, namespace))
    await run_job(client, job, namespace, "Failed", {"terminated": terminated})
    failed = await models.becomes("m", "SnapshotReady", "False", reason)
    assert told in failed["message"]
    await models.becomes("m", "Ready", "True", "Serving")


async def test_a_missing_secret_prints_the_command_that_creates_it(
    operator, client, kubelet, models, eventually, namespace
):
    await operator.start(*STORE, *SECRET)
    await serving(kubelet, models, eventually)
    job = await eventually(lambda: job_of(client, namespace))
    waiting = {
        "reason": "CreateContainerConfigError",
        "message": 'secret "glowplug-store" not found',
    }
    await run_job(client, job, namespace, "Pending", {"waiting": waiting})
    missing = await models.becomes("m", "SnapshotReady", "False", "ContainerConfigError")
    command = f"kubectl -n {namespace} create secret generic glowplug-store"
    assert command in missing["message"]


async def test_without_a_store_the_source_is_loaded(operator, client, kubelet, models, eventually):
    await operator.start()
    await serving(kubelet, models, eventually)
    await models.becomes("m", "SnapshotReady", "False", "NoStore")
    assert await client.list(MODELSNAPSHOTS, models.namespace) == []
