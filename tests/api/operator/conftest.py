"""The operator as a process of its own against a real API server.

There is no kubelet, scheduler or controller manager: `Kubelet` writes what they would write, and a
`Gateway` is a real HTTP server that an EndpointSlice points to.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from cluster.apiserver import free_ports
from glowplug.kube import (
    CRDS,
    ENDPOINTSLICES,
    GPUPOOLS,
    JOBS,
    MODELDEPLOYMENTS,
    MODELSNAPSHOTS,
    NAMESPACES,
    PODS,
    SERVICES,
    Client,
    Conflict,
    NotFound,
)

REPOSITORY = Path(__file__).parents[3]
# Not loopback, as EndpointSlices demand; its own for each test run.
GATEWAY_IP = f"198.18.254.{1 + os.getpid() % 250}"


async def _eventually(
    what: Callable[[], Awaitable[Any]], seconds: float = 20.0, every: float = 0.05
) -> Any:
    """The first true answer of `what`; an assertion error with its last answer otherwise."""
    last = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                last = await what()
                if last:
                    return last
                await asyncio.sleep(every)
    raise AssertionError(f"not within {seconds} s; last seen: {last!r}")


@pytest.fixture(scope="session")
def gateway_ip() -> Iterator[str]:
    """An address of the benchmark range on the loopback interface, for the time of the tests."""
    if os.geteuid() != 0:
        pytest.skip("adding an address to the loopback interface needs root")
    subprocess.run(["ip", "addr", "replace", f"{GATEWAY_IP}/32", "dev", "lo"], check=True)
    yield GATEWAY_IP
    subprocess.run(["ip", "addr", "del", f"{GATEWAY_IP}/32", "dev", "lo"], check=True)


@pytest.fixture
async def client(apiserver: Path) -> AsyncIterator[Client]:
    made = await Client.connect(str(apiserver))
    for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
        await made.apply(CRDS, yaml.safe_load(path.read_text()), field_manager="tests")
    await _eventually(lambda: _established(made))
    yield made
    for kind in (MODELDEPLOYMENTS, MODELSNAPSHOTS, GPUPOOLS):
        for item in await made.list(kind):
            await made.delete(kind, item["metadata"]["name"], item["metadata"].get("namespace"))
    await made.close()


async def _established(client: Client) -> bool:
    crds = await client.list(CRDS)
    return all(
        any(c["type"] == "Established" for c in crd.get("status", {}).get("conditions") or ())
        for crd in crds
    )


@pytest.fixture
async def namespace(client: Client) -> AsyncIterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    yield name
    for resource in (PODS, SERVICES, JOBS):
        for item in await client.list(resource, name):
            await client.delete(resource, item["metadata"]["name"], name, grace_seconds=0)


class Gateway:
    """A gateway's admin port: streams what a test says about demand."""

    def __init__(self) -> None:
        self.epoch = uuid.uuid4().hex
        self.models: dict[str, dict[str, Any]] = {}
        self._seq = 0
        self._news: list[asyncio.Queue[dict[str, Any]]] = []
        self.connected = asyncio.Event()
        self.silent = False  # its streams stand, and say nothing

    def say(
        self, model: str, *, firsts: list[dict[str, Any]] | None = None, **numbers: Any
    ) -> None:
        """Change one model's numbers and tell everybody at once."""
        entry = self.models.setdefault(
            model, {"held": 0, "inflight": 0, "arrivals": 0, "completions": 0, "busySeconds": 0.0}
        )
        entry |= numbers
        for news in self._news:
            news.put_nowait({"models": {model: entry}, **({"firsts": firsts} if firsts else {})})

    async def demand(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        news: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._news.append(news)
        line: dict[str, Any] = {"models": self.models}
        with contextlib.suppress(ConnectionResetError):
            while True:
                self._seq += 1
                line |= {"gateway": "gateway-0", "epoch": self.epoch, "seq": self._seq}
                if not self.silent:
                    await response.write(json.dumps(line).encode() + b"\n")
                    self.connected.set()
                try:
                    line = await asyncio.wait_for(news.get(), 0.5)
                except TimeoutError:
                    line = {"models": {}}
        self._news.remove(news)
        return response


@pytest.fixture
async def gateway(client: Client, namespace: str, gateway_ip: str) -> AsyncIterator[Gateway]:
    made = Gateway()
    app = web.Application()
    app.router.add_get("/demand", made.demand)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, gateway_ip, 0).start()
    await client.create(
        ENDPOINTSLICES,
        {
            "metadata": {
                "name": "glowplug-gateway-1",
                "namespace": namespace,
                "labels": {"kubernetes.io/service-name": "glowplug-gateway"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "admin", "port": runner.addresses[0][1], "protocol": "TCP"}],
            "endpoints": [{"addresses": [gateway_ip], "conditions": {"ready": True}}],
        },
    )
    yield made
    await runner.cleanup()


class Operator:
    """Starts and ends operator processes; each has its own port."""

    def __init__(self, kubeconfig: Path, namespace: str, directory: Path) -> None:
        self._env = os.environ | {
            "KUBECONFIG": str(kubeconfig),
            "POD_NAMESPACE": namespace,
            "GLOWPLUG_LAUNCHER_PYZ": str(directory / "launcher.pyz"),
        }
        (directory / "launcher.pyz").write_bytes(b"a zipapp")
        self._log = (directory / "operator.log").open("ab")
        self.log = directory / "operator.log"
        self.running: list[asyncio.subprocess.Process] = []
        self.port = 0

    async def start(self, *flags: str) -> asyncio.subprocess.Process:
        """Start one process and wait until it answers."""
        (self.port,) = free_ports(1)
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("glowplug-operator"),
            *("--port", str(self.port), "--loop", "0.5", *flags),
            env=self._env,
            stderr=self._log,
        )
        self.running.append(process)
        await _eventually(lambda: self.get("/readyz"))
        return process

    async def get(self, path: str) -> str | None:
        """The body of the newest process' answer, None unless it is 200."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as response,
            ):
                return await response.text() if response.status == 200 else None
        except aiohttp.ClientError:
            return None

    async def writes(self) -> float:
        """Writes that the newest process has made."""
        text = await self.get("/metrics") or ""
        lines = (line for line in text.splitlines() if line.startswith("glowplug_api_writes_total"))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    async def stop(self) -> None:
        """End every process, hard."""
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self.running.clear()
        self._log.close()


@pytest.fixture
async def operator(apiserver: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Operator]:
    made = Operator(apiserver, namespace, tmp_path)
    yield made
    await made.stop()
    sys.stdout.write(made.log.read_text())


class Kubelet:
    """What kubelet and scheduler would write to Pods."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def pods(self, **labels: str) -> list[dict[str, Any]]:
        """The namespace's replicas, by name."""
        found = await self._client.list(
            PODS, self._namespace, label_selector="app.kubernetes.io/component=replica"
        )
        matching = [
            pod
            for pod in found
            if all(
                pod["metadata"]["labels"].get(f"glowplug.dev/{k}") == v for k, v in labels.items()
            )
        ]
        return sorted(matching, key=lambda pod: pod["metadata"]["name"])

    async def serve(self, pod: dict[str, Any]) -> None:
        """The replica runs and is ready."""
        await self.status(
            pod,
            phase="Running",
            conditions=[
                {"type": "PodScheduled", "status": "True"},
                {"type": "PodReadyToStartContainers", "status": "True"},
                {"type": "Ready", "status": "True"},
            ],
        )

    async def serve_all(self, **labels: str) -> None:
        """Every replica that there is now serves."""
        for pod in await self.pods(**labels):
            with contextlib.suppress(NotFound):
                await self.serve(pod)

    async def refuse(self, pod: dict[str, Any], sentence: str) -> None:
        """The scheduler finds no node."""
        refused = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": sentence,
        }
        await self.status(pod, phase="Pending", conditions=[refused])

    async def status(self, pod: dict[str, Any], **status: Any) -> None:
        """Write the Pod's status."""
        with contextlib.suppress(Conflict):
            await self._client.patch(
                PODS,
                pod["metadata"]["name"],
                {"status": status},
                self._namespace,
                subresource="status",
            )


@pytest.fixture
def kubelet(client: Client, namespace: str) -> Kubelet:
    return Kubelet(client, namespace)


class Models:
    """Writes ModelDeployments and reads what became of them."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    async def create(self, name: str, **spec: Any) -> dict[str, Any]:
        """A model of a custom engine that starts at zero, unless `spec` says otherwise."""
        engine = {"type": "custom", "image": "engine:1", "command": ["serve"]}
        body = {
            "apiVersion": "glowplug.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"model": {"source": "s3://models/m"}, "engine": engine, **spec},
        }
        return await self._client.create(MODELDEPLOYMENTS, body)

    async def status(self, name: str) -> dict[str, Any]:
        """Its status as it is now."""
        body = await self._client.get(MODELDEPLOYMENTS, name, self.namespace)
        return body.get("status") or {}

    async def condition(self, name: str, kind: str) -> dict[str, Any]:
        """One of its conditions, {} before the first."""
        conditions = (await self.status(name)).get("conditions") or []
        return next((c for c in conditions if c["type"] == kind), {})

    async def becomes(self, name: str, kind: str, status: str, reason: str) -> dict[str, Any]:
        """Wait for a condition's status and reason; returns the condition."""

        async def look() -> dict[str, Any] | None:
            found = await self.condition(name, kind)
            return found if (found.get("status"), found.get("reason")) == (status, reason) else None

        try:
            return await _eventually(look)
        except AssertionError:
            raise AssertionError(await self.status(name)) from None

    async def patch(self, name: str, **spec: Any) -> None:
        """Merge into its spec."""
        await self._client.patch(MODELDEPLOYMENTS, name, {"spec": spec}, self.namespace)


@pytest.fixture
def models(client: Client, namespace: str) -> Models:
    return Models(client, namespace)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[Any]]:
    """Wait for something to become true."""
    return _eventually
