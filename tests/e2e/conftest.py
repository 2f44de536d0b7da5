"""The local cluster, brought up once and left running for the next test run."""

from collections.abc import AsyncIterator

import pytest

from cluster.client import Cluster
from stack.install import install
from stack.stack import Stack


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, up, with the Python base image on its node."""
    return Cluster.up()


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Stack:
    """Glowplug installed on it, with S3 store, Prometheus and the example's model."""
    return install()


@pytest.fixture
async def stack(installed: Stack) -> AsyncIterator[Stack]:
    """The same, with no model before the test and none after it."""
    await installed.delete_all()
    yield installed
    await installed.delete_all()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers of tests that take the stack from under the others."""
    for line in (
        "rebuilds_cluster: takes the cluster down, so it runs before all others",
        "replaces_release: uninstalls Glowplug, so it runs after all others",
    ):
        config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The cluster is rebuilt before anything is on it, the release replaced when all is done."""
    items.sort(
        key=lambda item: (
            "replaces_release" in item.keywords,
            "rebuilds_cluster" not in item.keywords,
        )
    )
