"""The local cluster, brought up once and left running for the next test run."""

import pytest

from cluster.client import Cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster, up, with the Python base image on its node."""
    return Cluster.up()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of tests that take the cluster down."""
    line = "rebuilds_cluster: takes the cluster down, so it runs before all others"
    config.addinivalue_line("markers", line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that rebuild the cluster run before anything is installed on it."""
    items.sort(key=lambda item: "rebuilds_cluster" not in item.keywords)
