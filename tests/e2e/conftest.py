"""The local cluster, brought up once and left running for the next test run."""

from collections.abc import AsyncIterator, Generator

import pytest

from cluster import lifecycle
from cluster.client import Cluster
from cluster.config import ClusterError, paths
from stack.install import SYSTEM, install
from stack.stack import Stack

SCENE = (
    ("get", "pods", "-A", "-o", "wide"),
    ("get", "modeldeployments.glowplug.dev", "-A", "-o", "yaml"),
    ("get", "events", "-A", "--sort-by=.lastTimestamp"),
    *(
        ("-n", SYSTEM, "logs", "--prefix", "--tail=80", "-l", f"app.kubernetes.io/component={name}")
        for name in ("operator", "gateway")
    ),
)
"""What a failure comes with: afterwards the fixtures tidy it away."""


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure comes with what the cluster had to say."""
    report = yield
    if report.failed and "installed" in getattr(item, "fixturenames", ()):
        report.sections += [(" ".join(words), _told(*words)) for words in SCENE]
    return report


def _told(*words: str) -> str:
    """The end of what kubectl says; the cluster itself may be what is broken."""
    try:
        return lifecycle.kubectl(paths(), *words)[-20_000:]
    except ClusterError as error:
        return str(error)
