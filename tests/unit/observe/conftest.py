"""What the tests of observe share: Pods, a cache without an API server, a clock to turn."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from glowplug.kube import ContainerRecord, PodRecord
from glowplug.kube.store import Store


class Clock:
    """Time that moves only when the test says so."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Cache(Store[Any]):
    """A watch cache that the test fills by hand; its store is the real one."""

    async def synced(self) -> None:
        return


def container(name: str = "engine", **changes: Any) -> ContainerRecord:
    fields = {
        "name": name,
        "running": True,
        "started": True,
        "ready": False,
        "restart_count": 0,
        "waiting_reason": None,
        "waiting_message": None,
        "terminated_reason": None,
        "exit_code": None,
        "message": None,
    }
    return ContainerRecord(**(fields | changes))


def pod(
    name: str = "m-0",
    *,
    version: int = 1,
    model: str = "m",
    port: int = 8000,
    launcher_port: int | None = 9410,
    metrics: str | None = "vllm",
    labels: dict[str, str] | None = None,
    **changes: Any,
) -> PodRecord:
    entry = {
        "model": model,
        "process": 0,
        "port": port,
        "launcherPort": launcher_port,
        "healthPath": "/health",
        "metricsPath": "/metrics",
        "metrics": metrics,
    }
    fields = {
        "uid": f"uid-{name}",
        "namespace": "ns",
        "name": name,
        "resource_version": str(version),
        "labels": {"glowplug.dev/model": model, "glowplug.dev/state": "active"} | (labels or {}),
        "annotations": {"glowplug.dev/replicas": json.dumps([entry])},
        "owner_uids": (),
        "node": None,
        "ip": "127.0.0.1",
        "phase": "Pending",
        "created": 1_000_000.0,
        "deleting": False,
        "scheduled": False,
        "unschedulable": None,
        "sandbox_ready": False,
        "ready": False,
        "containers": (container(),),
        "init_containers": (),
    }
    return PodRecord(**(fields | changes))


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


class Server:
    """One handler on loopback; `stop()` cuts every connection, as a killed process does."""

    def __init__(self, path: str, handler: Any) -> None:
        app = web.Application()
        app.router.add_route("*", path, handler)
        self._runner = web.AppRunner(app, shutdown_timeout=0.05)
        self.port = 0

    async def start(self, port: int = 0) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        await self._runner.cleanup()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """`await serve(path, handler, port=0)` -> a started Server."""
    servers: list[Server] = []

    async def start(path: str, handler: Any, port: int = 0) -> Server:
        server = Server(path, handler)
        await server.start(port)
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()
