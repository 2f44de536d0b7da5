"""Bring the local cluster up, repair it, take it down, and say how it is."""

import fcntl
import json
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster import base_image, dns, images, network, node, preflight
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
)
from cluster.control_plane import ApiServer, controllers
from cluster.processes import Daemon, end, stop, strays

# A restarted kubelet or kube-proxy would undo what comes after it, so they end first.
STOP_FIRST = ("device-plugin", "kubelet", "kube-proxy")


def api_server(paths: Paths) -> ApiServer:
    """The cluster's API server, on the bridge only."""
    return ApiServer(paths.bin, paths.root, NODE_IP, API_PORT, ETCD_PORT, ETCD_PEER_PORT)


def up(paths: Paths, gpus: int) -> None:
    """Start what does not run; state of a dead cluster is wiped first."""
    preflight.check_machine(paths)
    preflight.check_no_other_kubelet(paths)
    preflight.ensure_packages()
    ensure_binaries(paths)
    with _lock():
        repair = bool(_alive(paths))
        if not repair:
            _wipe(paths)
        try:
            _start(paths, gpus)
        except ClusterError as error:
            if not repair:
                raise
            console.print(f"The cluster could not be repaired, making it new: {error}")
            _wipe(paths)
            _start(paths, gpus)


def down(paths: Paths) -> None:
    """Remove the cluster with every process, mount, bridge and rule of it."""
    with _lock():
        _wipe(paths)


def status(paths: Paths) -> dict[str, str]:
    """Each part and its state, for people to read."""
    pids = sorted((paths.root / "pids").glob("*.json"))
    daemons = {file.stem: Daemon(file.stem, (), paths.root) for file in pids}
    report = {name: "running" if one.running() else "dead" for name, one in daemons.items()}
    if report and api_server(paths).ready():
        report["node"] = "Ready" if _node_ready(paths) else "NotReady"
        report[GPU_RESOURCE] = str(_node_gpus(paths))
    return report


def kubectl(paths: Paths, *words: str, stdin: str | None = None) -> str:
    """Run kubectl as the administrator."""
    program = paths.bin / "kubectl"
    return run([program, "--kubeconfig", paths.kubeconfig, *words], stdin=stdin, timeout=120)


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
        images.load(paths, [PAUSE_IMAGE])
        kubelet, proxy = node.kubelet(paths, server), node.kube_proxy(paths, server)
        kubelet.start()
        proxy.start()
        plugin = _device_plugin(paths, gpus)
        plugin.start()
        kubelet.wait(lambda: _node_ready(paths), 90)
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
            stop(pidfiles[name])
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


def _alive(paths: Paths) -> list[int]:
    return strays(paths.root)


def _node_ready(paths: Paths) -> bool:
    path = "-o=jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    return kubectl(paths, "get", "nodes", path).strip() == "True"


def _node_gpus(paths: Paths) -> int:
    answer = json.loads(kubectl(paths, "get", "node", NODE, "-o", "json"))
    return int(answer["status"].get("allocatable", {}).get(GPU_RESOURCE, 0))


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
