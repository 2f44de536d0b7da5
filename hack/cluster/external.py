"""Clusters that are not ours: an existing one by its kubeconfig, or kind where Docker runs.

`GLOWPLUG_KUBECONFIG=FILE` uses an existing cluster; so does `GLOWPLUG_CLUSTER=existing` with
KUBECONFIG. KUBECONFIG alone is not enough: tests must not land on somebody's production cluster
because a shell had it set. `GLOWPLUG_CLUSTER=kind` makes a cluster in Docker.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from cluster.build import ensure_binaries
from cluster.commands import console, run, succeeds
from cluster.config import GPU_RESOURCE, REPOSITORY, ClusterError, Paths
from cluster.images import IMAGES

KIND = "glowplug"


def kind_up(paths: Paths, gpus: int) -> None:
    """Create the kind cluster unless it is there; its node gets GPUs to count by a status patch."""
    if not succeeds(["docker", "info"]):
        raise ClusterError(
            "GLOWPLUG_CLUSTER=kind needs a Docker engine, and `docker info` does not answer: start "
            "Docker, or unset GLOWPLUG_CLUSTER for a cluster without it."
        )
    ensure_binaries(paths)
    paths.root.mkdir(parents=True, exist_ok=True)
    if KIND not in run(["kind", "get", "clusters"]).split():
        create = ["kind", "create", "cluster", "--name", KIND, "--wait", "120s"]
        run([*create, "--kubeconfig", paths.kubeconfig])
    capacity = {"status": {"capacity": {GPU_RESOURCE: str(gpus)}}}
    patch = ["patch", "node", f"{KIND}-control-plane", "--subresource=status", "-p"]
    run([*_kubectl(paths), *patch, json.dumps(capacity)])


def kind_down() -> None:
    """Delete the kind cluster."""
    run(["kind", "delete", "cluster", "--name", KIND])


def kind_images(names: Sequence[str]) -> None:
    """Build images by Docker and load them into kind's node."""
    for name in names:
        image = IMAGES[name]
        build = ["docker", "build", "--tag", image.tag, "--file", image.dockerfile, "."]
        run(build, cwd=REPOSITORY, timeout=None)
        run(["kind", "load", "docker-image", "--name", KIND, image.tag])


def existing_up(paths: Paths) -> None:
    """Check that the existing cluster answers and can schedule something."""
    ensure_binaries(paths)
    nodes = json.loads(run([*_kubectl(paths), "get", "nodes", "-o", "json"], timeout=60))["items"]
    if not any(_ready(node["status"]) for node in nodes):
        raise ClusterError(f"The cluster of {paths.kubeconfig} has no Ready node.")
    gpus = sum(int(node["status"]["allocatable"].get(GPU_RESOURCE, 0)) for node in nodes)
    console.print(f"using {paths.kubeconfig}: {len(nodes)} nodes, {gpus} x {GPU_RESOURCE}")


def existing_images(paths: Paths, names: Sequence[str]) -> None:
    """Images cannot be put onto nodes that are not ours: say what to do instead."""
    tags = ", ".join(IMAGES[name].tag for name in names)
    raise ClusterError(
        f"The nodes of {paths.kubeconfig} are not ours to load images into: build {tags} from "
        "their Dockerfiles, push them to your registry, and set the chart's image values."
    )


def _kubectl(paths: Paths) -> list[str | Path]:
    return [paths.bin / "kubectl", "--kubeconfig", paths.kubeconfig]


def _ready(status: dict[str, list[dict[str, str]]]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])
