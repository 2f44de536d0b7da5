"""The node: containerd, kubelet and kube-proxy, and what they leave behind when they die."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import yaml

from cluster.commands import run
from cluster.config import (
    CGROUP,
    DEVICE_PLUGINS,
    DNS_IP,
    DOMAIN,
    NODE,
    NODE_IP,
    PAUSE_IMAGE,
    POD_CIDR,
    ClusterError,
    Paths,
)
from cluster.control_plane import ApiServer
from cluster.processes import Daemon, write_config

CNI_BINARIES = "/usr/lib/cni"
CGROUPS = Path("/sys/fs/cgroup")
WEIGHTS = {"cpu.shares": 4 * 1024, "cpu.weight": 4 * 100}
"""All Pods together, as four processes of the host: as one they starve, as more the host does."""


def containerd(paths: Paths) -> Daemon:
    """Our own containerd: no directory or socket shared with the machine's."""
    home = paths.root / "containerd"
    home.mkdir(parents=True, exist_ok=True)
    # Without CAP_SYS_RESOURCE runc cannot lower a score, and every sandbox would fail with EOF.
    restrict = "false" if _has_sys_resource() else "true"
    config = home / "config.toml"
    write_config(
        config,
        f"""version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{paths.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{home}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = {restrict}
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{home}/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_BINARIES}"
conf_dir = "{paths.root}/cni/conf"
""",
    )
    argv = ["containerd", "--config", str(config), "--log-level", "warn"]
    return Daemon("containerd", argv, paths.root, inputs=(config,))


def ctr(paths: Paths, *words: str | Path) -> list[str | Path]:
    """A ctr command line on our containerd, in Kubernetes' namespace."""
    return ["ctr", "--address", paths.containerd_socket, "--namespace", "k8s.io", *words]


def kubelet(paths: Paths, server: ApiServer) -> Daemon:
    """The kubelet, with its own root directory and every pod below our own cgroup."""
    home = paths.root / "kubelet"
    home.mkdir(parents=True, exist_ok=True)
    serving, key = server.authority.issue("kubelet", f"system:node:{NODE}", addresses=[NODE_IP])
    _make_cgroup()
    body = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(server.authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving),
        "tlsPrivateKeyFile": str(key),
        "clusterDomain": DOMAIN,
        "clusterDNS": [DNS_IP],
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,  # never: no registry has our images
        "serializeImagePulls": False,
        "podLogsDir": str(paths.root / "pod-logs"),
        "volumePluginDir": str(paths.root / "volume-plugins"),
        "maxPods": 110,
        "shutdownGracePeriod": "0s",
    }
    config = home / "config.yaml"
    write_config(config, yaml.safe_dump(body))
    access = server.kubeconfig("kubelet.kubeconfig", f"system:node:{NODE}", "system:nodes")
    argv = [
        str(server.binaries / "kubelet"),
        f"--config={config}",
        f"--kubeconfig={access}",
        f"--root-dir={home}",
        f"--cert-dir={home}/pki",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_IP}",
    ]
    return Daemon("kubelet", argv, paths.root, inputs=(config, access))


def kube_proxy(paths: Paths, server: ApiServer) -> Daemon:
    """kube-proxy in iptables mode."""
    access = server.kubeconfig("kube-proxy.kubeconfig", "system:kube-proxy")
    body = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(access)},
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE,
        "bindAddress": NODE_IP,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "iptables": {"localhostNodePorts": False, "minSyncPeriod": "0s"},
        "conntrack": {"maxPerCore": 0, "min": 0},  # the machine's own limits stay as they are
        "nodePortAddresses": [POD_CIDR],
    }
    config = paths.root / "kube-proxy.yaml"
    write_config(config, yaml.safe_dump(body))
    argv = [str(server.binaries / "kube-proxy"), f"--config={config}"]
    return Daemon("kube-proxy", argv, paths.root, inputs=(config, access))


def clean(paths: Paths) -> None:
    """Remove what a node leaves when its processes are gone: tasks, cgroups, mounts, sockets."""
    kill_pods()
    for mount in sorted(mounts(paths), reverse=True):
        with suppress(ClusterError):
            run(["umount", "--lazy", mount])
    left = mounts(paths)
    if left:
        raise ClusterError(f"still mounted: {', '.join(left)}. See what uses them with `fuser -m`.")
    for cgroup in list(_cgroups()):
        for name, _, _ in os.walk(cgroup, topdown=False):
            with suppress(OSError):
                Path(name).rmdir()
    for file in DEVICE_PLUGINS.glob("*"):
        file.unlink(missing_ok=True)
    for folder in (DEVICE_PLUGINS, DEVICE_PLUGINS.parent):
        with suppress(OSError):
            folder.rmdir()
    for link in Path("/var/log/containers").glob("*.log"):
        if str(link.readlink()).startswith(f"{paths.root}/"):
            link.unlink()
    with suppress(OSError):
        Path("/var/log/containers").rmdir()
    _remove_shim_sockets(paths)


def mounts(paths: Paths) -> list[str]:
    """Mount points below the cluster's directory."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{paths.root}/")]


def pod_processes() -> list[int]:
    """Processes that live in the cgroups of our pods."""
    found: set[int] = set()
    for cgroup in _cgroups():
        for file in cgroup.rglob("cgroup.procs"):
            with suppress(OSError):
                found.update(int(word) for word in file.read_text().split())
    return sorted(found)


def _remove_shim_sockets(paths: Paths) -> None:
    """Shims put their sockets into /run/containerd whatever the state directory is."""
    bundles = paths.root / "containerd/state/io.containerd.runtime.v2.task"
    for address in bundles.glob("*/*/address"):
        Path(address.read_text().strip().removeprefix("unix://")).unlink(missing_ok=True)
    for folder in ("/run/containerd/s", "/run/containerd"):
        with suppress(OSError):
            Path(folder).rmdir()


def kill_pods() -> None:
    deadline = time.monotonic() + 15
    while pids := pod_processes():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise ClusterError(f"processes of pods do not end: {pids}")
        time.sleep(0.05)


def _cgroups() -> Iterator[Path]:
    """Our cgroup in each hierarchy (v1), or in the one (v2)."""
    for parent in (CGROUPS, *CGROUPS.iterdir()):
        if (parent / CGROUP / "cgroup.procs").exists():
            yield parent / CGROUP


def _make_cgroup() -> None:
    """The kubelet wants its cgroup root to be there already."""
    if (CGROUPS / "cgroup.controllers").exists():
        wanted = (CGROUPS / "cgroup.controllers").read_text().split()
        control = " ".join(f"+{name}" for name in wanted)
        (CGROUPS / "cgroup.subtree_control").write_text(control)
        (CGROUPS / CGROUP).mkdir(exist_ok=True)
        _weigh(CGROUPS)
        return
    for hierarchy in CGROUPS.iterdir():
        if hierarchy.is_dir() and hierarchy.name != "unified":
            (hierarchy / CGROUP).mkdir(exist_ok=True)
            _seed_cpuset(hierarchy)
            _weigh(hierarchy)


def _weigh(hierarchy: Path) -> None:
    for name, weight in WEIGHTS.items():
        file = hierarchy / CGROUP / name
        if file.exists():
            file.write_text(str(weight))


def _seed_cpuset(hierarchy: Path) -> None:
    """A new cpuset of cgroup v1 is empty and takes no process until it has CPUs and memory."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = hierarchy / CGROUP / name
        if file.exists() and not file.read_text().strip():
            file.write_text((hierarchy / name).read_text())


def _has_sys_resource() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)
