"""Bring the local cluster up, repair it, take it down, and say how it is."""

import fcntl
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster import base_image, dns, external, network, node, preflight
from cluster import images as image_builder
from cluster.build import ensure_binaries
from cluster.commands import console, run, succeeds
from cluster.config import (
    API_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    GPU_RESOURCE,
    HERE,
    NODE,
    NODE_IP,
    PAUSE_IMAGE,
    ClusterError,
    Paths,
    mode,
)
from cluster.control_plane import ApiServer, controllers
from cluster.processes import Daemon, end, is_running, stop, strays

# A restarted kubelet or kube-proxy would undo what comes after it, so they end first.
STOP_FIRST = ("device-plugin", "kubelet", "kube-proxy")


def api_server(paths: Paths) -> ApiServer:
    """The cluster's API server, on the bridge only."""
    return ApiServer(paths.bin, paths.root, NODE_IP, API_PORT, ETCD_PORT, ETCD_PEER_PORT)


def up(paths: Paths, gpus: int) -> None:
    """Start what does not run; state of a dead cluster is wiped first."""
    match mode(os.environ):
        case "kind":
            external.kind_up(paths, gpus)
        case "existing":
            external.existing_up(paths)
        case _:
            prepare(paths)
            preflight.check_no_other_kubelet(paths)
            ensure_binaries(paths)
            with _lock():
                _start_or_repair(paths, gpus)


def down(paths: Paths) -> None:
    """Remove the cluster with every process, mount, bridge and rule of it."""
    match mode(os.environ):
        case "kind":
            external.kind_down()
        case "existing":
            raise ClusterError(f"The cluster of {paths.kubeconfig} is not ours to take down.")
        case _:
            with _lock():
                _wipe(paths)


def images(paths: Paths, names: Sequence[str]) -> None:
    """Build the images that changed and load them into the cluster."""
    match mode(os.environ):
        case "kind":
            external.kind_images(names)
        case "existing":
            external.existing_images(paths, names)
        case _:
            image_builder.load(paths, image_builder.ensure(paths, names))


def prepare(paths: Paths) -> None:
    """Check the machine and install the Debian packages it lacks."""
    preflight.check_machine(paths)
    preflight.ensure_packages()


def status(paths: Paths) -> dict[str, str]:
    """Each part and its state, for people to read."""
    report = _daemons(paths)
    if report and api_server(paths).ready():
        report["node"] = "Ready" if _node_ready(paths) else "NotReady"
        report[GPU_RESOURCE] = str(_node_gpus(paths))
    return report


def kubectl(paths: Paths, *words: str, stdin: str | None = None) -> str:
    """Run kubectl as the administrator."""
    program = paths.bin / "kubectl"
    return run([program, "--kubeconfig", paths.kubeconfig, *words], stdin=stdin, timeout=120)


def _start_or_repair(paths: Paths, gpus: int) -> None:
    repair = "running" in _daemons(paths).values()
    if not repair:
        _wipe(paths)
    try:
        _start(paths, gpus)
    except ClusterError as error:
        if not repair:
            raise
        console.print(f"The cluster could not be repaired, making it new: {error}", markup=False)
        _wipe(paths)
        _start(paths, gpus)


def _start(paths: Paths, gpus: int) -> None:
    _claim(paths)
    server = api_server(paths)
    with _step("network"):
        network.up(paths)
    with _step("API server"):
        server.etcd().start()
        apiserver = server.kube_apiserver()
        apiserver.start()
        runtime = node.containerd(paths)
        runtime.start()
        apiserver.wait(server.ready, 60)
        server.kubeconfig("kubeconfig", "kubernetes-admin", "system:masters")
    with _step("controllers, DNS"):
        for daemon in controllers(server):
            daemon.start()
        kubectl(paths, "apply", "--server-side", "-f", "-", stdin=dns.as_list(_objects()))
        resolver = dns.daemon(paths, server)
        resolver.start()
    with _step("node"):
        runtime.wait(lambda: succeeds(node.ctr(paths, "version")), 30)
        base_image.ensure_pause(paths)
        image_builder.load(paths, [PAUSE_IMAGE])
        kubelet, proxy = node.kubelet(paths, server), node.kube_proxy(paths, server)
        kubelet.start()
        proxy.start()
        plugin = _device_plugin(paths, gpus)
        plugin.start()
        started = kubelet.pidfile.stat().st_mtime
        kubelet.wait(lambda: _node_ready(paths, since=started), 90)
    with _step(f"{gpus} x {GPU_RESOURCE}"):
        plugin.wait(lambda: _node_gpus(paths) == gpus, 60)
        proxy.wait(lambda: _answers("http://127.0.0.1:10256/healthz"), 30)
        resolver.wait(lambda: _answers(f"http://127.0.0.1:{dns.READY_PORT}/ready"), 30)
        wait_account = ("get", "serviceaccount", "default", "--ignore-not-found", "-o", "name")
        controllers(server)[0].wait(lambda: bool(kubectl(paths, *wait_account)), 30)


def _objects() -> list[dict[str, object]]:
    kubelet_client = dns.bind_user("system:kubelet-api-admin", "kube-apiserver-kubelet-client")
    return [*dns.objects(), kubelet_client]


def _device_plugin(paths: Paths, gpus: int) -> Daemon:
    api = paths.bin / "device_plugin_api"
    argv = [sys.executable, "-m", "cluster.device_plugin", str(api), GPU_RESOURCE, str(gpus)]
    argv.append(f"{paths.root}/")  # names the cluster, so that a stray one is found
    return Daemon("device-plugin", argv, paths.root, env={"PYTHONPATH": str(HERE.parent)})


def _wipe(paths: Paths) -> None:
    if paths.root.exists() and any(paths.root.iterdir()) and not _marker(paths).exists():
        raise ClusterError(f"{paths.root} holds files that are not a cluster of ours: move them.")
    pidfiles = {file.stem: file for file in (paths.root / "pids").glob("*.json")}
    for name in (*STOP_FIRST, *sorted(pidfiles.keys() - set(STOP_FIRST))):
        if name in pidfiles and name != "containerd":
            stop(pidfiles[name], seconds=0)  # nothing of its state is kept
    node.kill_pods()
    for pid in strays(paths.root):
        end(pid, seconds=0)
    node.clean(paths)
    network.down(paths)
    shutil.rmtree(paths.root, ignore_errors=True)
    if paths.root.exists():
        raise ClusterError(
            f"{paths.root} could not be removed: see what holds it with `fuser -vm`."
        )


def _claim(paths: Paths) -> None:
    paths.root.mkdir(parents=True, exist_ok=True)
    _marker(paths).touch()


def _marker(paths: Paths) -> Path:
    return paths.root / ".glowplug-cluster"


def _daemons(paths: Paths) -> dict[str, str]:
    pidfiles = sorted((paths.root / "pids").glob("*.json"))
    return {file.stem: "running" if is_running(file) else "dead" for file in pidfiles}


def _node_ready(paths: Paths, since: float = 0.0) -> bool:
    """Whether the node is Ready by a heartbeat not older than `since`."""
    ready = next(
        (one for one in _node(paths).get("conditions", ()) if one["type"] == "Ready"), None
    )
    if ready is None or ready["status"] != "True":
        return False
    return datetime.fromisoformat(ready["lastHeartbeatTime"]).timestamp() >= int(since)


def _node_gpus(paths: Paths) -> int:
    return int(_node(paths).get("allocatable", {}).get(GPU_RESOURCE, 0))


def _node(paths: Paths) -> dict[str, Any]:
    """The node's status; empty before it has registered."""
    answer = kubectl(paths, "get", "node", NODE, "--ignore-not-found", "-o", "json")
    status: dict[str, Any] = json.loads(answer)["status"] if answer else {}
    return status


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _step(title: str) -> Iterator[None]:
    with console.status(title):
        yield
    console.print(f"[green]✓[/] {title}")


@contextmanager
def _lock() -> Iterator[None]:
    """One `up` or `down` at a time."""
    with Path("/run/glowplug-cluster.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
