"""The gateway's own process against a real API server: what it watches is what it serves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from cluster.apiserver import free_ports
from glowplug.api import meta
from glowplug.kube import CRDS, MODELDEPLOYMENTS, PODS, Client

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
async def client(apiserver: Path) -> AsyncIterator[Client]:
    made = await Client.connect(str(apiserver))
    for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
        await made.apply(CRDS, yaml.safe_load(path.read_text()), field_manager="tests")
    await _established(made)
    yield made
    await made.close()


async def _established(client: Client) -> None:
    async with asyncio.timeout(30):
        while True:
            crds = await client.list(CRDS)
            if all(_is_established(crd) for crd in crds):
                return
            await asyncio.sleep(0.05)


def _is_established(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


@dataclass
class Running:
    """A gateway process: where it listens, and what it has said since."""

    process: asyncio.subprocess.Process
    http_port: int
    admin_port: int
    log: asyncio.Task[list[dict[str, Any]]]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}{path}"

    def admin(self, path: str) -> str:
        return f"http://127.0.0.1:{self.admin_port}{path}"


@pytest.fixture
async def gateway(client: Client, apiserver: Path, namespace: str) -> AsyncIterator[Running]:
    http, admin = free_ports(2)
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("glowplug-gateway"),
        *("--http-port", str(http), "--admin-port", str(admin), "--namespace", namespace),
        env=os.environ | {"KUBECONFIG": str(apiserver), "POD_NAME": "gateway-0"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        lines: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            await _said(process, lines, "accepting clients")
        yield Running(process, http, admin, asyncio.create_task(_rest(process, lines)))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _said(
    process: asyncio.subprocess.Process, lines: list[dict[str, Any]], message: str
) -> None:
    assert process.stderr is not None
    while not lines or lines[-1]["message"] != message:
        lines.append(json.loads(await process.stderr.readline()))


async def _rest(
    process: asyncio.subprocess.Process, lines: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    assert process.stderr is not None
    async for line in process.stderr:
        lines.append(json.loads(line))
    return lines


class FakePod:
    """What a replica's Pod runs: a real engine and a real launcher endpoint, on loopback."""

    def __init__(self) -> None:
        self.phase = "starting"
        self.asked: list[dict[str, Any]] = []
        self.ports: tuple[int, int] = (0, 0)

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        app.router.add_get("/state", self._state)
        ports = []
        for _ in range(2):
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            ports.append(runner.addresses[0][1])
        self.ports = (ports[0], ports[1])

    async def _state(self, request: web.Request) -> web.Response:
        seq = 1 if self.phase == "starting" else 2
        while request.query.get("after") == str(seq):
            await asyncio.sleep(0.01)
            seq = 1 if self.phase == "starting" else 2
        return web.json_response({"seq": seq, "phase": self.phase, "stages": []})

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        return web.json_response({"choices": [{"message": {"content": "Paris."}}]})

    def body(self, model: str) -> dict[str, Any]:
        replicas = [
            {
                "model": model,
                "process": 0,
                "port": self.ports[0],
                "launcherPort": self.ports[1],
                "healthPath": "/health",
                "metricsPath": "/metrics",
                "metrics": None,
            }
        ]
        return {
            "metadata": {
                "name": f"{model}-0a0a0a0a-0",
                "labels": {
                    meta.LABEL_MODEL: model,
                    meta.LABEL_REVISION: "0a0a0a0a",
                    meta.LABEL_SLOT: "0",
                    meta.LABEL_STATE: meta.STATE_ACTIVE,
                    meta.LABEL_MANAGED_BY: meta.MANAGER,
                    meta.LABEL_COMPONENT: meta.COMPONENT_REPLICA,
                },
                "annotations": {meta.ANNOTATION_REPLICAS: json.dumps(replicas)},
            },
            "spec": {
                "containers": [{"name": "engine", "image": "example.invalid/engine"}],
                "automountServiceAccountToken": False,
            },
        }


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    body = {"model": {"source": "s3://models/smol", "servedName": "smol-served"}} | spec
    return {
        "apiVersion": meta.API_VERSION,
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": body,
    }


async def test_a_model_at_zero_is_served_once_its_pod_is_there(
    client: Client, gateway: Running, namespace: str
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        async with http.get(gateway.admin("/readyz")) as ready:
            assert ready.status == 200
        demand = await stack.enter_async_context(http.get(gateway.admin("/demand")))
        fake = FakePod()
        await fake.start(stack)

        # Known from the watch, and held while there is no Pod.
        await client.create(MODELDEPLOYMENTS, deployment("smol"), namespace)
        await _listed(http, gateway, ["smol-served"])
        question = {"model": f"{namespace}/smol", "messages": []}
        asking = asyncio.create_task(_post(http, gateway, question))
        await _demand(demand, f"{namespace}/smol", held=1)

        # The Pod gets an IP; its launcher says ready later.
        pod = await client.create(PODS, fake.body("smol"), namespace)
        name = pod["metadata"]["name"]
        status = {
            "podIP": "127.0.0.1",
            "podIPs": [{"ip": "127.0.0.1"}],
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True"}],
        }
        await client.patch(PODS, name, {"status": status}, namespace, subresource="status")
        await asyncio.sleep(0.3)
        assert not asking.done()
        fake.phase = "ready"
        assert await asyncio.wait_for(asking, 60) == 200
        assert fake.asked == [{"model": "smol-served", "messages": []}]
        line = await _demand(demand, f"{namespace}/smol", held=0, completions=1)
        assert line["pods"] == {pod["metadata"]["uid"]: 0}

        # Draining: nothing new goes there.
        labels = {"metadata": {"labels": {meta.LABEL_STATE: meta.STATE_DRAINING}}}
        await client.patch(PODS, name, labels, namespace)
        await _demand(demand, f"{namespace}/smol", pods={})
        asking = asyncio.create_task(_post(http, gateway, question))
        await _demand(demand, f"{namespace}/smol", held=1)

        # Deleted while a request is held: it is told.
        await client.delete(MODELDEPLOYMENTS, "smol", namespace)
        assert await asyncio.wait_for(asking, 60) == 404
        await _listed(http, gateway, [])
        await client.delete(PODS, name, namespace, grace_seconds=0)

    gateway.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(gateway.process.wait(), 60) == 0
    log = await gateway.log
    assert not [line for line in log if line["level"] in ("warning", "error")], log
    assert "Paris" not in json.dumps(log)


async def _post(http: aiohttp.ClientSession, gateway: Running, body: dict[str, Any]) -> int:
    async with http.post(gateway.url("/v1/chat/completions"), json=body) as response:
        await response.read()
        return response.status


async def _listed(http: aiohttp.ClientSession, gateway: Running, expected: list[str]) -> None:
    async with asyncio.timeout(60):
        while True:
            async with http.get(gateway.url("/v1/models")) as response:
                models = (await response.json())["data"]
            if [model["id"] for model in models] == expected:
                return
            await asyncio.sleep(0.02)


async def _demand(response: aiohttp.ClientResponse, model: str, **numbers: Any) -> dict[str, Any]:
    """Read on until the model's numbers are these."""
    async with asyncio.timeout(60):
        while True:
            entry = json.loads(await response.content.readline())["models"].get(model, {})
            if entry and entry.items() >= numbers.items():
                return entry
