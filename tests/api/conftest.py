"""A real etcd and kube-apiserver on loopback, shared by all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.apiserver import running


@pytest.fixture(scope="session")
def apiserver() -> Iterator[Path]:
    """The kubeconfig of a cluster administrator."""
    with running() as kubeconfig:
        yield kubeconfig
