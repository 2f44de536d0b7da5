"""A running Glowplug as a user sees it: kubectl, the gateway's URL, and the example model."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
import yaml

from cluster.client import Cluster
from cluster.commands import run
from cluster.config import ClusterError
from stack import processes

T = TypeVar("T")
Json = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parent.parent.parent
EXAMPLE = REPOSITORY / "examples" / "smollm2"
RUNNING = "vllm:num_requests_running"  # as the example's engine calls it


@dataclass(frozen=True, slots=True)
class Stack:
    """Where an installed Glowplug is. `namespace` holds the models, `system` the release."""

    cluster: Cluster
    gateway_url: str
    prometheus_url: str
    s3_endpoint: str
    namespace: str = "demo"
    system: str = "glowplug-system"

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl in the models' namespace and return what it printed."""
        return self.cluster.kubectl("-n", self.namespace, *words, stdin=stdin)

    def get(self, kind: str, name: str) -> Json | None:
        """One object, or None."""
        text = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def glowplug(self, *words: str) -> str:
        """Run the command `glowplug` in the models' namespace and return what it printed."""
        command = Path(sys.executable).with_name("glowplug")
        where = ("-n", self.namespace, "--kubeconfig", self.cluster.kubeconfig)
        return run([command, *words, *where], timeout=120)

    def find(self, kind: str, selector: str = "", namespace: str | None = None) -> list[Json]:
        """Objects of a kind, those with the selector's labels."""
        words = ["get", kind, "-o", "json", "-l", selector]
        if namespace:
            words += ["-n", namespace]
        items: list[Json] = json.loads(self.kubectl(*words))["items"]
        return items

    def apply(self, body: Json) -> None:
        """`kubectl apply` of one object."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))

    def smollm2(self, name: str, *, start_delay: float = 0) -> Json:
        """The example's ModelDeployment under another name, quick to idle."""
        body: Json = yaml.safe_load((EXAMPLE / "modeldeployment.yaml").read_text())
        body = copy.deepcopy(body)
        body["metadata"] = {"name": name}
        body["spec"]["model"]["endpoint"] = self.s3_endpoint
        body["spec"]["scaling"]["idleAfter"] = "10s"
        if start_delay:
            delay = {"name": "GLOWPLUG_EXAMPLE_START_DELAY", "value": str(start_delay)}
            body["spec"]["engine"]["env"] = [delay]
        return body

    def deploy(self, body: Json) -> str:
        """Apply a ModelDeployment, wait until a gateway has heard of it, and return its name."""
        self.apply(body)
        name: str = body["metadata"]["name"]
        deadline = time.monotonic() + 60
        while not self._is_known(name):
            if time.monotonic() > deadline:
                raise AssertionError(f"the gateway does not know {name} a minute after it was made")
            time.sleep(0.02)
        return name

    def _is_known(self, name: str) -> bool:
        url = f"{self.gateway_url}/v1/models/{name}"
        try:
            return requests.get(url, timeout=10).status_code != 404
        except requests.RequestException:
            return False

    def refused(self, body: Json) -> str:
        """What `kubectl apply` says when it refuses the object; an accepted one is an error."""
        try:
            self.apply(body)
        except ClusterError as error:
            return str(error)
        self.delete(body["metadata"]["name"])
        raise AssertionError(f"{body['metadata']['name']} was accepted")

    def delete(self, name: str) -> None:
        """Delete the ModelDeployment."""
        self.kubectl("delete", "modeldeployments.glowplug.dev", name, "--ignore-not-found")

    async def delete_all(self) -> None:
        """Delete every ModelDeployment of the namespace and wait until its Pods are gone."""
        self.kubectl("delete", "modeldeployments.glowplug.dev", "--all")
        selector = "app.kubernetes.io/managed-by=glowplug"
        await self.until(lambda: self.find("pods", selector) == [], 240)

    def status(self, name: str) -> Json:
        """status of the ModelDeployment, {} when there is none."""
        body = self.get("modeldeployments.glowplug.dev", name)
        status: Json = (body or {}).get("status", {})
        return status

    def condition(
        self, name: str, kind: str, *, status: str | None = None, reason: str | None = None
    ) -> Json | None:
        """The condition of a type, if it has that status and reason."""
        for condition in self.status(name).get("conditions", []):
            fits = status in (None, condition["status"]) and reason in (None, condition["reason"])
            if condition["type"] == kind and fits:
                found: Json = condition
                return found
        return None

    def pods(self, name: str) -> list[Json]:
        """The model's Pods, terminating ones included."""
        return self.find("pods", f"glowplug.dev/model={name}")

    def revisions(self, name: str) -> list[str]:
        """The revision of each of the model's Pods, terminating ones included."""
        return [pod["metadata"]["labels"]["glowplug.dev/revision"] for pod in self.pods(name)]

    def draining(self, name: str) -> list[Json]:
        """The model's Pods that are marked as draining."""
        return self.find("pods", f"glowplug.dev/model={name},glowplug.dev/state=draining")

    def in_flight(self, pod: Json) -> int:
        """Requests that the engine in this Pod runs, as it says itself."""
        text = requests.get(f"http://{pod['status']['podIP']}:8000/metrics", timeout=10).text
        lines = (line for line in text.splitlines() if line.startswith(RUNNING))
        return int(sum(float(line.rpartition(" ")[2]) for line in lines))

    def ready_replicas(self, name: str) -> int:
        """Ready replicas by the model's status."""
        count: int = self.status(name).get("readyReplicas", 0)
        return count

    def objects_of(self, name: str) -> list[str]:
        """What exists in the namespace because of this only model, as kind/name."""
        kinds = "modeldeployments.glowplug.dev,modelsnapshots.glowplug.dev"
        kinds += ",pods,services,configmaps,jobs,endpointslices"
        items = json.loads(self.kubectl("get", kinds, "-o", "json"))["items"]
        return [
            f"{item['kind']}/{item['metadata']['name']}"
            for item in items
            if item["metadata"]["name"] == name
            or item["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "glowplug"
        ]

    async def until(self, probe: Callable[[], T], seconds: float, pause: float = 0.5) -> T:
        """Ask `probe` until it answers something true, and return that."""
        deadline = time.monotonic() + seconds
        while True:
            answer = await asyncio.to_thread(probe)
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s; the last answer was {answer!r}")
            await asyncio.sleep(pause)

    async def kill_first_engine(self, name: str, seconds: float = 60) -> bool:
        """SIGKILL the engine process of the model's first Pod as soon as it runs."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for pod in await asyncio.to_thread(self.pods, name):
                engines = processes.of_pod(pod["metadata"]["uid"], "/engine/server.py")
                if engines:
                    processes.kill(engines)
                    return True
            await asyncio.sleep(0.2)
        return False

    def kill_operator(self, *, leader: bool = False) -> None:
        """SIGKILL the operator's processes on this node, or only the one that leads."""
        holder = self.leader()
        for pod in self.find("pods", "app.kubernetes.io/component=operator", self.system):
            if not leader or holder.startswith(pod["metadata"]["name"]):
                processes.kill(processes.of_pod(pod["metadata"]["uid"], "glowplug-operator"))

    def leader(self) -> str:
        """Who holds the operator's Lease."""
        lease = self.cluster.get("-n", self.system, "lease", "glowplug-operator")
        return str(lease["spec"].get("holderIdentity") or "")

    def prometheus(self, query: str) -> float:
        """The single value of an instant query, 0 when there is no series."""
        answer = requests.get(
            f"{self.prometheus_url}/api/v1/query", params={"query": query}, timeout=10
        ).json()
        result = answer["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0
