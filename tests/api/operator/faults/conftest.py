"""Faults beside a model that must not notice them; the operator lives in the test's own process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from glowplug.control.model import Settings
from glowplug.kube import EVENTS, MODELDEPLOYMENTS

from ..life import Fate, Life, lease_runs_out

SETTINGS = Settings(0.2, "snapshotter:1", None)


@pytest.fixture(autouse=True)
def _kopf_finds_it(apiserver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(apiserver))


@pytest.fixture
async def lives(apiserver, client, namespace) -> AsyncIterator[Callable[..., Any]]:
    """Starts an operator; its fate lists the writes it makes."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*, prometheus_url: str | None = None) -> Fate:
            fate = Fate()
            fate.arm()
            life = Life(
                apiserver, namespace, fate, settings=SETTINGS, prometheus_url=prometheus_url
            )
            await stack.enter_async_context(life)
            return fate

        yield start
    await lease_runs_out(client, namespace)


class Neighbour:
    """The model `well`: it serves, and nothing about it changes."""

    def __init__(self, client, kubelet, models, eventually) -> None:
        self._client = client
        self._kubelet = kubelet
        self._models = models
        self._eventually = eventually

    async def serve(self) -> None:
        await self._models.create("well", replicas=1)
        await self._eventually(lambda: self._kubelet.pods(model="well"))
        await self._kubelet.serve_all(model="well")
        await self._models.becomes("well", "Ready", "True", "Serving")

    async def versions(self) -> list[str]:
        """resourceVersions of the model and its Pod; they move with every write."""
        pods = await self._kubelet.pods(model="well")
        model = await self._client.get(MODELDEPLOYMENTS, "well", self._models.namespace)
        return [body["metadata"]["resourceVersion"] for body in (model, *pods)]


@pytest.fixture
async def neighbour(client, kubelet, models, eventually) -> Neighbour:
    return Neighbour(client, kubelet, models, eventually)


@pytest.fixture
def warned(client, namespace, eventually) -> Callable[..., Any]:
    """Wait for a Warning event of this reason about this model; its note."""

    async def wait(model: str, reason: str) -> str:
        async def look() -> str | None:
            for event in await client.list(EVENTS, namespace):
                about = event["regarding"]["name"]
                if (about, event["reason"], event["type"]) == (model, reason, "Warning"):
                    note: str = event["note"]
                    return note
            return None

        found: str = await eventually(look)
        return found

    return wait


async def writes_within(fate: Fate, seconds: float) -> list[str]:
    """The writes of some seconds."""
    before = len(fate.writes)
    await asyncio.sleep(seconds)
    return fate.writes[before:]
