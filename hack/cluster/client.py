"""A running cluster as tests see it: its kubeconfig, its node's address, and kubectl."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import base_image, images, lifecycle
from cluster.config import GPUS, NODE_IP, paths


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster, used as its administrator."""

    kubeconfig: Path
    node_ip: str
    image: str  # an image with python3 that the node holds

    @classmethod
    def up(cls) -> "Cluster":
        """Bring the cluster up, with the Python base image on its node."""
        where = paths()
        lifecycle.up(where, GPUS)
        base_image.ensure_python(where)
        images.load(where, [base_image.PYTHON_IMAGE])
        return cls(where.kubeconfig, NODE_IP, base_image.PYTHON_IMAGE)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed; its failure is a ClusterError."""
        return lifecycle.kubectl(paths(), *words, stdin=stdin)

    def get(self, *words: str) -> Any:
        """`kubectl get` as parsed JSON."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, body: dict[str, Any]) -> None:
        """`kubectl apply` of one object."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))
