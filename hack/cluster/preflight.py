"""What the machine must be and have: each lack is one sentence; Debian packages are installed."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.commands import console, follow, run
from cluster.config import ClusterError, Paths
from cluster.processes import command_lines

PACKAGES = {  # Debian package -> what of it we run
    "buildah": "/usr/bin/buildah",
    "conntrack": "/usr/sbin/conntrack",
    "containerd": "/usr/bin/containerd",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "debootstrap": "/usr/sbin/debootstrap",
    "iproute2": "/usr/sbin/ip",
    "iptables": "/usr/sbin/iptables",
    "kmod": "/usr/sbin/modprobe",
    "prometheus": "/usr/bin/prometheus",
    "runc": "/usr/sbin/runc",
}
GO = (1, 26)
PYTHON = (3, 11)
DISK_GIB, MEMORY_GIB = 15, 6
GIB = 1 << 30


def check_machine(paths: Paths) -> None:
    """Raise a ClusterError that lists everything the machine lacks."""
    problems = list(_problems(paths))
    if problems:
        raise ClusterError("This machine cannot run the cluster:\n- " + "\n- ".join(problems))


def check_no_other_kubelet(paths: Paths) -> None:
    """Two kubelets on one machine would fight over its containers and iptables rules."""
    for pid, argv in command_lines():
        ours = any(f"{paths.root}/" in word for word in argv)
        if Path(argv[0]).name == "kubelet" and not ours:
            raise ClusterError(
                f"A kubelet that is not ours is running (pid {pid}). Stop it, or use its cluster: "
                "GLOWPLUG_KUBECONFIG=/path/to/kubeconfig."
            )


def ensure_packages() -> None:
    """Install the Debian packages that are missing, after listing them."""
    missing = [name for name, file in PACKAGES.items() if not Path(file).exists()]
    if not missing:
        return
    console.print(f"installing Debian packages: {', '.join(missing)}")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
    with _no_services():
        try:
            follow(install, "packages", env=env)
        except ClusterError:  # no package lists yet, or old ones
            run(["apt-get", "update", "-q"])
            follow(install, "packages", env=env)


def _problems(paths: Paths) -> Iterator[str]:
    if os.geteuid() != 0:
        yield "Root is needed: run the command with sudo or as root."
    release = _os_release()
    if release.get("ID") != "debian" or release.get("VERSION_ID") != "12":
        found = release.get("PRETTY_NAME", "an unknown system")
        yield (
            f"Debian 12 is needed, this is {found}: use GLOWPLUG_CLUSTER=kind where Docker runs, "
            "or an existing cluster by GLOWPLUG_KUBECONFIG."
        )
    if sys.version_info < PYTHON:
        yield f"Python >= {_dotted(PYTHON)} is needed, this is {_dotted(sys.version_info[:2])}."
    go = _go_version()
    if go is None:
        yield f"Go >= {_dotted(GO)} is needed and `go` is not on PATH: install it from go.dev."
    elif go < GO:
        yield f"Go >= {_dotted(GO)} is needed, this is {_dotted(go)}: install a newer one."
    paths.cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(paths.cache).free
    if free < DISK_GIB * GIB:
        yield f"{DISK_GIB} GiB of disk are needed below {paths.cache}, {free // GIB} GiB are free."
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < MEMORY_GIB * GIB:
        yield f"{MEMORY_GIB} GiB of memory are needed, the machine has {memory // GIB} GiB."


def _os_release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def _go_version() -> tuple[int, int] | None:
    try:
        found = re.search(r"go(\d+)\.(\d+)", run(["go", "version"]))
    except ClusterError:
        return None
    return (int(found[1]), int(found[2])) if found else None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep apt from starting the services it installs: ours run apart from the machine's."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()
