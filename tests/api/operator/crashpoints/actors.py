"""Everybody else in the cluster: kubelet, the Job controller, gateways, and a witness."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from glowplug.kube import CONFIGMAPS, JOBS, PODS, ApiError, Client, Json

STATE = "glowplug.dev/state"
RESULT = {
    "event": "result",
    "digest": "blake3:" + "ab" * 32,
    "bytes": 1000,
    "files": 3,
    "manifest": "s3://snapshots/x/manifests/abab/manifest.json",
}
READY = {
    "phase": "Running",
    "conditions": [
        {"type": kind, "status": "True"}
        for kind in ("PodScheduled", "PodReadyToStartContainers", "Ready")
    ],
}


def is_replica(pod: Json) -> bool:
    return pod["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "replica"


def is_active(pod: Json) -> bool:
    labels = pod["metadata"]["labels"]
    return "deletionTimestamp" not in pod["metadata"] and labels.get(STATE) == "active"


def is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@contextlib.asynccontextmanager
async def at_work(client: Client, namespace: str, gateway: Any) -> AsyncIterator[None]:
    """Kubelet, Job controller and gateway go about their work in `namespace`."""
    task = asyncio.create_task(_work(client, namespace, gateway))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _work(client: Client, namespace: str, gateway: Any) -> None:
    while True:
        with contextlib.suppress(ApiError):
            replicas = [pod for pod in await client.list(PODS, namespace) if is_replica(pod)]
            # Every replica mounts the launcher: without it, kubelet starts none.
            mounted = await client.list(CONFIGMAPS, namespace)
            for pod in replicas:
                if mounted and is_active(pod) and not is_ready(pod):
                    await _set_status(client, pod, READY)
            for job in await client.list(JOBS, namespace):
                await _run_job(client, job)
            sends_to = {p["metadata"]["uid"]: 0 for p in replicas if is_active(p)}
            gateway.say(f"{namespace}/m", pods=sends_to)
        await asyncio.sleep(0.1)


async def _run_job(client: Client, job: Json) -> None:
    meta, template = job["metadata"], job["spec"]["template"]
    labels = template["metadata"]["labels"] | {"batch.kubernetes.io/job-name": meta["name"]}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
    pod = {
        "metadata": {
            "name": f"{meta['name']}-0",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }
    with contextlib.suppress(ApiError):
        made = await client.create(PODS, pod)
        ended = {"exitCode": 0, "message": json.dumps(RESULT)}
        container = {
            "name": "snapshot",
            "image": "snapshotter:1",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        await _set_status(client, made, {"phase": "Succeeded", "containerStatuses": [container]})


async def _set_status(client: Client, pod: Json, status: Json) -> None:
    meta = pod["metadata"]
    with contextlib.suppress(ApiError):
        await client.patch(
            PODS, meta["name"], {"status": status}, meta["namespace"], subresource="status"
        )


class Witness:
    """Sees every change of a replica and remembers what must never be."""

    def __init__(self, at_most: int, at_least: Callable[[], int]) -> None:
        self._at_most = at_most
        self._at_least = at_least
        self._pods: dict[str, Json] = {}
        self.complaints: list[str] = []

    @contextlib.asynccontextmanager
    async def watching(self, client: Client, namespace: str) -> AsyncIterator[None]:
        start = "0"
        async for page in client.pages(PODS, namespace):
            start = page["metadata"]["resourceVersion"]
        task = asyncio.create_task(self._watch(client, namespace, start))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, client: Client, namespace: str, start: str) -> None:
        events = client.watch(PODS, namespace, resource_version=start)
        async with contextlib.aclosing(events):
            async for kind, pod in events:
                if kind == "BOOKMARK" or not is_replica(pod):
                    continue
                name = pod["metadata"]["name"]
                if kind == "DELETED":
                    self._pods.pop(name, None)
                else:
                    self._pods[name] = pod
                self._judge(f"{kind} {name}")

    def _judge(self, what: str) -> None:
        active = [pod["metadata"]["labels"] for pod in self._pods.values() if is_active(pod)]
        slots = Counter((p["glowplug.dev/revision"], p["glowplug.dev/slot"]) for p in active)
        if max(slots.values(), default=0) > 1:
            self.complaints.append(f"{what}: two active Pods for one slot: {slots}")
        if len(active) > self._at_most:
            self.complaints.append(f"{what}: {len(active)} active Pods, {self._at_most} allowed")
        serving = sum(is_active(pod) and is_ready(pod) for pod in self._pods.values())
        if serving < self._at_least():
            self.complaints.append(f"{what}: {serving} serve, {self._at_least()} must")
