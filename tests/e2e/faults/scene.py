"""What the faults are played with: a model that must not notice, light engines, and what was said.

A light engine is Python's file server over the restored folder: it is healthy only if the weights
are there, starts in a moment, and is a real process under the real launcher.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import requests
from prometheus_client.parser import text_string_to_metric_families

from cluster.config import paths
from stack.ask import Answer, ask
from stack.install import service_ip
from stack.stack import Stack

Json = dict[str, Any]
WELL = "well"
ENGINE_IMAGE = "docker.io/glowplug/smollm2-engine:dev"
FILE_SERVER = ["python3", "-m", "http.server", "{port}", "--directory", "{model_dir}"]
PATIENCE_S = 240.0
"""Two busy cores, and kubelet's own backoff of 10, 20, 40 s between restarts."""
TIMEOUT_S = 1800
"""For one test: where others use the machine, its engines answer ten times as slowly."""


def light(name: str, source: str, endpoint: str, *, gpus: int = 0, **model: Any) -> Json:
    """One pinned replica of a light engine; `model` goes into spec.model."""
    return {
        "apiVersion": "glowplug.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "model": {
                "source": source,
                "endpoint": endpoint,
                "secretRef": {"name": "glowplug-store"},
                "snapshot": {"policy": "Never"},
                **model,
            },
            "engine": {
                "type": "custom",
                "image": ENGINE_IMAGE,
                "command": FILE_SERVER,
                "healthPath": "/config.json",
                "port": 8000,
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            },
            "gpu": {"count": gpus},
            "update": {"drainTimeout": "60s"},
        },
    }


def with_launch(body: Json, launch: Json) -> Json:
    """The same model whose launcher is told `launch`: nobody waits half an hour in a test."""
    told = {"name": "GLOWPLUG_LAUNCH", "value": json.dumps(launch)}
    template = {"spec": {"containers": [{"name": "engine", "env": [told]}]}}
    return {**body, "spec": {**body["spec"], "template": template}}


def launch_of(pod: Json) -> Json:
    """What the operator told the launcher of a Pod."""
    env = pod["spec"]["containers"][0]["env"]
    found: Json = json.loads(next(v["value"] for v in env if v["name"] == "GLOWPLUG_LAUNCH"))
    return found


def change(stack: Stack, name: str, **spec: Any) -> None:
    """Merge into a model's spec."""
    body = json.dumps({"spec": spec})
    stack.kubectl("patch", "modeldeployments.glowplug.dev", name, "--type=merge", "-p", body)


def events(stack: Stack, name: str) -> list[Json]:
    """What the operator has said about this very object."""
    model = stack.get("modeldeployments.glowplug.dev", name)
    assert model is not None
    listed = json.loads(stack.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
    return [one for one in listed if one["regarding"].get("uid") == model["metadata"]["uid"]]


def warnings(stack: Stack, name: str, reason: str) -> list[str]:
    """The notes of the operator's warnings with this reason."""
    return [
        one["note"]
        for one in events(stack, name)
        if (one["type"], one["reason"]) == ("Warning", reason)
    ]


def uids(stack: Stack, name: str) -> list[str]:
    """Its Pods."""
    return sorted(pod["metadata"]["uid"] for pod in stack.pods(name))


def is_serving(stack: Stack, name: str, replicas: int) -> bool:
    """The end state of every fault: so many replicas, all ready, and every condition is well."""
    status = stack.status(name)
    found = {c["type"]: c["status"] for c in status.get("conditions", ())}
    well = found.get("Ready") == found.get("CapacityAvailable") == "True"
    counts = status.get("replicas"), status.get("readyReplicas"), len(stack.pods(name))
    return well and counts == (replicas, replicas, replicas)


async def writes_within(stack: Stack, seconds: float) -> float:
    """How often the operator wrote to the API server, by its own metric."""
    before = await asyncio.to_thread(_writes)
    await asyncio.sleep(seconds)
    return await asyncio.to_thread(_writes) - before


def _writes() -> float:
    url = f"http://{service_ip(paths(), 'glowplug-operator')}:8080/metrics"
    text = requests.get(url, timeout=10).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "glowplug_api_writes_total"
    )


@asynccontextmanager
async def neighbour(stack: Stack) -> AsyncIterator[Json]:
    """The model `well` with one real replica (its Pod), asked without a pause until the end.

    At the end no request has failed, the replica is the same process and never left Ready.
    """
    body = stack.smollm2(WELL)
    body["spec"]["model"]["snapshot"] = {"policy": "Never"}
    body["spec"]["scaling"] |= {"minReplicas": 1, "maxReplicas": 1}
    stack.deploy(body)
    await stack.until(lambda: is_serving(stack, WELL, 1), PATIENCE_S)
    [pod] = stack.pods(WELL)
    before = _standing(stack)
    answers: list[Answer] = []
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_keep_asking(stack, answers, stop))
        try:
            yield pod
        finally:
            stop.set()
    assert answers
    assert [answer for answer in answers if not answer.finished] == []
    assert _standing(stack) == before


async def _keep_asking(stack: Stack, answers: list[Answer], stop: asyncio.Event) -> None:
    async with aiohttp.ClientSession() as session:
        while not stop.is_set():
            answers.append(await ask(stack.gateway_url, WELL, "Hi", max_tokens=1, session=session))
            await asyncio.sleep(0.5)


def _standing(stack: Stack) -> tuple[object, ...]:
    ready = stack.condition(WELL, "Ready", status="True", reason="Serving")
    assert ready is not None, stack.status(WELL)
    [pod] = stack.pods(WELL)
    restarts = [one["restartCount"] for one in pod["status"]["containerStatuses"]]
    return ready["lastTransitionTime"], pod["metadata"]["uid"], restarts
