"""Nodes without machines: kwok plays the kubelets of an API server on loopback.

Pods are scheduled by the real scheduler and are Running and Ready a moment later, each with an
address of 127.64.0.0/16, so that a process on this machine can answer in the place of all of them.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cluster.apiserver import serving
from cluster.build import ensure_kwok
from cluster.commands import run
from cluster.config import GPU_RESOURCE, paths
from cluster.control_plane import ApiServer, controllers
from cluster.dns import as_list
from cluster.processes import Daemon, stop

POD_RANGE = "127.64.0.0/16"
_PODS_EACH = 1000


@contextmanager
def simulated(nodes: int, gpus: int) -> Iterator[ApiServer]:
    """A control plane with `nodes` nodes of `gpus` GPUs each, and room for 1,000 Pods each."""
    with serving() as server, ExitStack() as cleanup:
        for daemon in (_scheduler(server), _kwok(server)):
            cleanup.callback(stop, daemon.pidfile)
            daemon.start()
        kubeconfig = server.kubeconfig("kubeconfig", "kubernetes-admin", "system:masters")
        kubectl: list[str | Path] = [server.binaries / "kubectl", "--kubeconfig", kubeconfig]
        names = [f"node-{number}" for number in range(nodes)]
        run([*kubectl, "create", "-f", "-"], stdin=as_list([_node(name, gpus) for name in names]))
        run([*kubectl, "wait", "--for=condition=Ready", "node", "--all", "--timeout=60s"])
        # The controller manager would do this; nothing else of it is needed.
        run([*kubectl, "taint", "node", "--all", "node.kubernetes.io/not-ready:NoSchedule-"])
        yield server


def _scheduler(server: ApiServer) -> Daemon:
    """The scheduler, allowed to bind as fast as it can; without a port, which another may have."""
    _, scheduler = controllers(server)
    flags = ["--kube-api-qps=1000", "--kube-api-burst=1000", "--secure-port=0"]
    return dataclasses.replace(scheduler, argv=[*scheduler.argv, *flags])


def _kwok(server: ApiServer) -> Daemon:
    folder = ensure_kwok(paths())
    access = server.kubeconfig("kwok.kubeconfig", "kwok", "system:masters")
    argv = [
        str(folder / "kwok"),
        f"--config={folder}/stages.yaml",
        f"--kubeconfig={access}",
        f"--cidr={POD_RANGE}",
        "--node-ip=127.0.0.1",
        "--manage-all-nodes=true",
        "--node-lease-duration-seconds=0",  # nobody watches these nodes' health
    ]
    return Daemon("kwok", argv, server.directory)


def _node(name: str, gpus: int) -> dict[str, object]:
    resources = {
        "cpu": "1000",
        "memory": "100Ti",
        "pods": str(_PODS_EACH),
        GPU_RESOURCE: str(gpus),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"type": "kwok"}},
        "status": {"allocatable": resources, "capacity": resources},
    }
