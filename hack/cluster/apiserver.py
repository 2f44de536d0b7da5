"""A real API server alone on loopback, for tests of what the API itself promises."""

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cluster.build import ensure_binaries
from cluster.config import paths
from cluster.control_plane import ApiServer
from cluster.processes import stop


@contextmanager
def running() -> Iterator[Path]:
    """Start etcd and kube-apiserver; yields the administrator's kubeconfig (about 3 s)."""
    with serving() as server:
        yield server.kubeconfig("kubeconfig", "kubernetes-admin", "system:masters")


@contextmanager
def serving() -> Iterator[ApiServer]:
    """Start etcd and kube-apiserver; yields the server, for kubeconfigs of others and its log."""
    binaries = ensure_binaries(paths())
    directory = Path(tempfile.mkdtemp(prefix="glowplug-apiserver-"))
    port, etcd_port, peer_port = free_ports(3)
    server = ApiServer(binaries, directory, "127.0.0.1", port, etcd_port, peer_port, node=False)
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        etcd, apiserver = server.etcd(), server.kube_apiserver()
        cleanup.callback(stop, etcd.pidfile)
        etcd.start()
        cleanup.callback(stop, apiserver.pidfile)
        apiserver.start()
        apiserver.wait(server.ready, 60)
        yield server


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on right now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
