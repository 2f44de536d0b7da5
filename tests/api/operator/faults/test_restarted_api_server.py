"""The API server is killed and comes back, with its etcd untouched, in the middle of a scale-up."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cluster.apiserver import free_ports
from cluster.build import ensure_binaries
from cluster.config import paths
from cluster.control_plane import ApiServer
from cluster.processes import pid_of, stop

from .conftest import writes_within


@pytest.fixture(scope="module")
def mortal() -> Iterator[ApiServer]:
    """An API server of this module's own."""
    directory = Path(tempfile.mkdtemp(prefix="glowplug-apiserver-"))
    ports = free_ports(3)
    server = ApiServer(ensure_binaries(paths()), directory, "127.0.0.1", *ports, node=False)
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        etcd, api = server.etcd(), server.kube_apiserver()
        cleanup.callback(stop, etcd.pidfile)
        etcd.start()
        cleanup.callback(stop, api.pidfile)
        api.start()
        api.wait(server.ready, 60)
        yield server


@pytest.fixture(scope="module")
def apiserver(mortal) -> Path:
    return mortal.kubeconfig("kubeconfig", "kubernetes-admin", "system:masters")


async def test_it_comes_back_and_nothing_is_doubled(
    lives, mortal, client, gateway, kubelet, models, neighbour, eventually, namespace
):
    fate = await lives()
    await neighbour.serve()
    await models.create("m", scaling={"targetConcurrency": 1, "maxReplicas": 40})
    await models.becomes("m", "Ready", "True", "ScaledToZero")
    await gateway.connected.wait()
    before = await neighbour.versions()

    gateway.say(f"{namespace}/m", held=40, arrivals=40)
    await eventually(lambda: kubelet.pods(model="m"), every=0.001)
    daemon = mortal.kube_apiserver()
    os.kill(pid_of(daemon.pidfile), signal.SIGKILL)
    await asyncio.sleep(1.0)
    assert not daemon.running()
    daemon.start()
    await asyncio.to_thread(daemon.wait, mortal.ready, 60)

    async def all_there():
        pods = await kubelet.pods(model="m")
        return pods if len(pods) == 40 else None

    pods = await eventually(all_there, seconds=60)
    slots = {int(pod["metadata"]["labels"]["glowplug.dev/slot"]) for pod in pods}
    assert slots == set(range(40))
    assert await neighbour.versions() == before
    assert not [write for write in await writes_within(fate, 3.0) if "/pods" in write]
    await kubelet.serve_all()
    await models.becomes("m", "Ready", "True", "Serving")
    await models.patch("well", replicas=2)

    async def grown():
        return len(await kubelet.pods(model="well")) == 2

    await eventually(grown, seconds=60)  # kopf watches again
