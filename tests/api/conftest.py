"""A real etcd and kube-apiserver on loopback, shared by all tests of this folder."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster.apiserver import running
from glowplug.kube import NAMESPACES, Client


@pytest.fixture(scope="session")
def apiserver() -> Iterator[Path]:
    """The kubeconfig of a cluster administrator."""
    with running() as kubeconfig:
        yield kubeconfig


@pytest.fixture
async def client(apiserver: Path) -> AsyncIterator[Client]:
    made = await Client.connect(str(apiserver))
    yield made
    await made.close()


@pytest.fixture
async def namespace(client: Client) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    return name
