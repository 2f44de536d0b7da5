"""Versions, addresses and directories of the local cluster, written in this one place."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KUBERNETES = "1.35.4"
HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

# 198.18.0.0/15 is the range for benchmarks: it is nobody's network, private ranges may be.
BRIDGE = "glowplug0"
NODE_IP = "198.18.0.1"
POD_CIDR = "198.18.0.0/24"
SERVICE_CIDR = "198.19.0.0/16"
API_SERVICE_IP = "198.19.0.1"
DNS_IP = "198.19.0.10"
NODE = "glowplug"
DOMAIN = "cluster.local"
CNI_NETWORK = "glowplug"
CGROUP = "glowplug"
GPU_RESOURCE = "nvidia.com/gpu"
GPUS = 4  # that the node advertises unless told otherwise
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"

API_PORT = 6443
ETCD_PORT = 12379
ETCD_PEER_PORT = 12380
DNS_PORT = 10053
S3_PORT = 8333
PROMETHEUS_PORT = 9091

# The kubelet's device manager listens here whatever its --root-dir says.
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")


class ClusterError(Exception):
    """Something the user can act on; its text is the sentence that says what."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie: `root` is state that `down` removes, `cache` outlives it."""

    root: Path
    cache: Path
    existing: Path | None = None  # kubeconfig of a cluster that is not ours

    @property
    def bin(self) -> Path:
        """Programs built from source, by Kubernetes version."""
        return self.cache / "bin" / KUBERNETES

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.existing or self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def containerd_socket(self) -> Path:
        """The socket of our own containerd."""
        return self.root / "containerd" / "containerd.sock"


def paths() -> Paths:
    """Read the directories from the environment, with their defaults."""
    root = Path(os.environ.get("GLOWPLUG_CLUSTER_DIR", "/var/lib/glowplug-cluster"))
    cache = Path(os.environ.get("GLOWPLUG_CACHE", Path.home() / ".cache" / "glowplug"))
    return Paths(root.resolve(), cache.resolve(), _existing_kubeconfig(os.environ))


def mode(environ: Mapping[str, str]) -> str:
    """`local`, `kind` or `existing`, as the environment says."""
    chosen = environ.get(
        "GLOWPLUG_CLUSTER", "existing" if environ.get("GLOWPLUG_KUBECONFIG") else ""
    )
    if chosen not in ("", "local", "kind", "existing"):
        raise ClusterError(f"GLOWPLUG_CLUSTER is {chosen!r}: it may be local, kind or existing.")
    return chosen or "local"


def _existing_kubeconfig(environ: Mapping[str, str]) -> Path | None:
    """The kubeconfig of an existing cluster; None for a cluster that we make."""
    if mode(environ) != "existing":
        return None
    given = environ.get("GLOWPLUG_KUBECONFIG") or environ.get("KUBECONFIG")
    if not given or not Path(given).is_file():
        raise ClusterError(
            f"An existing cluster needs GLOWPLUG_KUBECONFIG: {given or 'nothing'} is no file."
        )
    return Path(given)
