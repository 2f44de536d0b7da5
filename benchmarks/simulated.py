"""What spike.py and scale.py run on: a real API server and operator, kwok for kubelets.

Requests of the operator are counted in the API server's audit log.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from engines import ENGINE_PORT
from report import Report, arguments

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "hack"))

from cluster.apiserver import free_ports
from cluster.control_plane import ApiServer
from cluster.processes import end
from cluster.simulation import simulated
from glowplug.api import meta
from glowplug.kube import (
    CRDS,
    ENDPOINTSLICES,
    MODELDEPLOYMENTS,
    NAMESPACES,
    PODS,
    Client,
    NotFound,
)

REPOSITORY = Path(__file__).resolve().parent.parent
NAMESPACE = "models"
OPERATOR = "glowplug-operator"
_FIELD = "/proc/{}/{}"


@dataclass(slots=True)
class Program:
    """A process of ours that is being measured."""

    name: str
    child: asyncio.subprocess.Process
    log: Path

    def rss_mib(self) -> float:
        """Resident memory now."""
        pages = int(Path(_FIELD.format(self.child.pid, "statm")).read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def peak_mib(self) -> float:
        """Highest resident memory since its start."""
        status = Path(_FIELD.format(self.child.pid, "status")).read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def cpu_s(self) -> float:
        """CPU time since its start."""
        stat = Path(_FIELD.format(self.child.pid, "stat")).read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    async def stop(self) -> None:
        """End it and wait until it is gone."""
        if self.child.returncode is None:
            await asyncio.to_thread(end, self.child.pid)
        await self.child.wait()


class Site:
    """The simulated cluster with what a benchmark asks of it."""

    def __init__(self, server: ApiServer, client: Client, address: str) -> None:
        self.server = server
        self.client = client
        self.address = address
        self._stack = AsyncExitStack()

    async def start(self, program: str | Path, *flags: str) -> Program:
        """Start one of our commands; it ends with the site at the latest."""
        name = Path(program).name
        groups = ("system:masters", "system:serviceaccounts")  # whose reads are audited too
        access = self.server.kubeconfig(f"{name}.kubeconfig", name, *groups)
        env = os.environ | {
            "KUBECONFIG": str(access),
            "POD_NAMESPACE": NAMESPACE,
            "GLOWPLUG_LAUNCHER_PYZ": str(self.server.directory / "launcher.pyz"),
            "PYTHONPYCACHEPREFIX": str(self.server.directory / "bytecode"),  # the image has it
            "PYTHONDONTWRITEBYTECODE": "",
        }
        log = self.server.directory / "logs" / f"{name}.log"
        command = Path(sys.executable).parent / program
        with log.open("ab") as sink:
            child = await asyncio.create_subprocess_exec(
                command, *flags, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )
        made = Program(name, child, log)
        self._stack.push_async_callback(made.stop)
        return made

    async def start_operator(self, *flags: str) -> tuple[Program, int]:
        """Start the operator and wait until it has read everything once; returns its port too."""
        (port,) = free_ports(1)
        program = await self.start(OPERATOR, "--port", str(port), *flags)
        await answers(f"http://127.0.0.1:{port}/readyz", program)
        return program, port

    async def close(self) -> None:
        """End what was started."""
        await self._stack.aclose()

    def requests(self, user: str, since: float, until: float) -> list[dict[str, Any]]:
        """The audit records of a user's requests in that time (s since the epoch), one each."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted((self.server.directory / "logs").glob("audit*.log")):
            with path.open() as lines:
                for line in lines:
                    if user not in line:
                        continue
                    record = json.loads(line)
                    at = _seconds(record["requestReceivedTimestamp"])
                    if record["user"]["username"] == user and since <= at <= until:
                        found[record["auditID"]] = record
        return list(found.values())

    async def create_model(self, name: str, **spec: Any) -> None:
        """A model of a custom engine that speaks vLLM's metrics; at zero unless `spec` says so."""
        engine = {
            "type": "custom",
            "image": "engine:1",
            "command": ["serve"],
            "metrics": "vllm",
            "port": ENGINE_PORT,
        }
        body = {
            "apiVersion": "glowplug.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"model": {"source": "s3://models/m"}, "engine": engine, **spec},
        }
        await self.client.create(MODELDEPLOYMENTS, body)

    async def condition(self, name: str, kind: str) -> dict[str, Any]:
        """One condition of a model, {} before the first."""
        body = await self.client.get(MODELDEPLOYMENTS, name, NAMESPACE)
        conditions = (body.get("status") or {}).get("conditions") or []
        return next((c for c in conditions if c["type"] == kind), {})

    async def models(self) -> list[dict[str, Any]]:
        """All models as they are."""
        return await self.client.list(MODELDEPLOYMENTS, NAMESPACE)

    async def pods(self, model: str | None = None) -> list[dict[str, Any]]:
        """The replicas of one model, or of all."""
        selector = f"{meta.LABEL_MODEL}={model}" if model else meta.LABEL_MODEL
        return await self.client.list(PODS, NAMESPACE, label_selector=selector)

    async def delete_model(self, name: str) -> None:
        """Delete a model and, as the garbage collector would, its Pods."""
        await self.client.delete(MODELDEPLOYMENTS, name, NAMESPACE)
        for pod in await self.pods(name):
            try:
                await self.client.delete(PODS, pod["metadata"]["name"], NAMESPACE, grace_seconds=0)
            except NotFound:
                continue


def measure(doc: str | None, run: Callable[[bool], Coroutine[Any, Any, Report]]) -> None:
    """Run a benchmark by the common options, print, and write; SIGTERM tidies up as ^C does."""
    options = arguments(doc)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = asyncio.run(run(options.quick))
    report.show()
    if options.json:
        report.write(options.json)


@asynccontextmanager
async def site(nodes: int, gpus: int) -> AsyncIterator[Site]:
    """A simulated cluster with our CRDs and a namespace; everything is gone afterwards."""
    with simulated(nodes, gpus) as server, _address() as address:
        (server.directory / "launcher.pyz").write_bytes(b"no Pod here reads it")
        client = await Client.connect(str(server.directory / "kubeconfig"))
        made = Site(server, client, address)
        try:
            for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
                await client.apply(CRDS, yaml.safe_load(path.read_text()), field_manager="bench")
            await until(lambda: _established(client), 30)
            await client.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
            yield made
        finally:
            await made.close()
            await client.close()


@contextmanager
def _address() -> Any:
    """An address that an EndpointSlice may name, on loopback, for the time of the benchmark."""
    address = f"198.18.253.{1 + os.getpid() % 250}"
    subprocess.run(["ip", "addr", "replace", f"{address}/32", "dev", "lo"], check=True)
    try:
        yield address
    finally:
        subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)


async def _established(client: Client) -> bool:
    return all(
        any(c["type"] == "Established" for c in (crd.get("status") or {}).get("conditions") or ())
        for crd in await client.list(CRDS)
    )


async def expose_gateway(made: Site, port: int) -> None:
    """Let the operator find the gateway's admin port."""
    body = {
        "metadata": {
            "name": "glowplug-gateway-1",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": meta.GATEWAY_SERVICE},
        },
        "addressType": "IPv4",
        "ports": [{"name": "admin", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [made.address], "conditions": {"ready": True}}],
    }
    await made.client.create(ENDPOINTSLICES, body)


class Arrivals:
    """When each replica Pod was first seen on a watch (monotonic seconds), by model."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.seen: dict[str, list[float]] = {}
        self.watching = asyncio.Event()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        listed = [p async for p in self._client.pages(PODS, NAMESPACE)]
        version = listed[-1]["metadata"]["resourceVersion"]
        self.watching.set()  # what is created from now on is seen
        while True:
            events = self._client.watch(PODS, NAMESPACE, resource_version=version, seconds=3000)
            async for kind, pod in events:
                version = pod["metadata"]["resourceVersion"]
                if kind == "ADDED":
                    model = pod["metadata"]["labels"].get(meta.LABEL_MODEL, "")
                    self.seen.setdefault(model, []).append(time.monotonic())
                    self._news.set()

    async def until(self, models: list[str], count: int, seconds: float) -> None:
        """Wait until each of `models` has had `count` Pods created."""
        async with asyncio.timeout(seconds):
            while any(len(self.seen.get(model, ())) < count for model in models):
                self._news.clear()
                await self._news.wait()


async def until(what: Callable[[], Any], seconds: float, pause: float = 0.05) -> Any:
    """The first true answer of `what`; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            found = await what()
            if found:
                return found
            await asyncio.sleep(pause)


async def answers(url: str, program: Program, seconds: float = 60) -> None:
    """Wait until `url` answers 200; a program that ended meanwhile is an error with its log."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(seconds):
        while True:
            if program.child.returncode is not None:
                tail = program.log.read_text()[-2000:]
                raise RuntimeError(f"{program.name} ended; its log ends:\n{tail}")
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)


async def hold_request(url: str, model: str, session: aiohttp.ClientSession) -> None:
    """Stream one request through the gateway to its end; cancelling it is a client that leaves."""
    body = {
        "model": f"{NAMESPACE}/{model}",
        "stream": True,
        "messages": [{"role": "user", "content": "Is it served?"}],
    }
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for _ in response.content.iter_any():
            pass


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
