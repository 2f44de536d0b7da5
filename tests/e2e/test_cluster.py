"""The local cluster is a real one: it schedules GPUs, resolves names, and survives a kill."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from cluster import network, node
from cluster.client import Cluster
from cluster.config import BRIDGE, GPU_RESOURCE, GPUS, paths
from cluster.lifecycle import down, up
from cluster.processes import pid_of, start_time, strays


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def pod(cluster: Cluster, name: str, code: str, gpus: int = 0) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": cluster.image,
        "imagePullPolicy": "Never",
        "command": ["python3", "-u", "-c", code],
        "resources": {"limits": {GPU_RESOURCE: str(gpus)} if gpus else {}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


def run_pod(cluster: Cluster, namespace: str, body: dict[str, Any]) -> None:
    cluster.apply(body | {"metadata": body["metadata"] | {"namespace": namespace}})


def wait_ready(cluster: Cluster, namespace: str, name: str) -> None:
    cluster.kubectl(
        "-n", namespace, "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=110s"
    )


def eventually(probe: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(start_time(pid) is None for pid in pids))


def kill_daemons(*names: str) -> None:
    pids = [pid_of(paths().root / "pids" / f"{name}.json") for name in names]
    kill([pid for pid in pids if pid is not None])


@pytest.mark.rebuilds_cluster
@pytest.mark.timeout(900)
def test_a_killed_cluster_comes_up_anew_and_down_leaves_nothing() -> None:
    where = paths()
    cluster = Cluster.up()
    run_pod(cluster, "default", pod(cluster, "orphan", "import time; time.sleep(600)"))
    wait_ready(cluster, "default", "orphan")
    assert f"bridge {BRIDGE}" in network.leftovers()

    # What a machine does to a session's processes when the session ends.
    kill([*strays(where.root), *node.pod_processes()])
    assert node.mounts(where), "the kubelet's mount outlives it: that is what up has to cope with"
    up(where, GPUS)
    assert cluster.get("pods", "-A")["items"] == [], "the new cluster is an empty one"

    down(where)
    assert network.leftovers() == []
    assert strays(where.root) == []
    assert node.mounts(where) == []
    assert node.pod_processes() == []
    assert not where.root.exists()


def test_up_on_a_running_cluster_changes_nothing(cluster: Cluster) -> None:
    before = strays(paths().root)
    up(paths(), GPUS)
    assert strays(paths().root) == before


def test_a_killed_kubelet_and_container_runtime_are_repaired_under_a_running_pod(
    cluster: Cluster, namespace: str
) -> None:
    run_pod(cluster, namespace, pod(cluster, "stays", "import time; time.sleep(600)"))
    wait_ready(cluster, namespace, "stays")
    uid = cluster.get("-n", namespace, "pod", "stays")["metadata"]["uid"]

    kill_daemons("kubelet", "containerd", "device-plugin")
    up(paths(), GPUS)

    after = cluster.get("-n", namespace, "pod", "stays")
    assert after["metadata"]["uid"] == uid
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0
    assert cluster.kubectl("-n", namespace, "exec", "stays", "--", "echo", "here") == "here\n"


def test_the_node_is_ready_and_advertises_gpus(cluster: Cluster) -> None:
    (only,) = cluster.get("nodes")["items"]
    ready = next(c for c in only["status"]["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "True"
    assert only["status"]["allocatable"][GPU_RESOURCE] == str(GPUS)
    assert cluster.node_ip in [a["address"] for a in only["status"]["addresses"]]


def test_a_pod_gets_the_gpus_it_asks_for(cluster: Cluster, namespace: str) -> None:
    code = "import os, time; print(os.environ['NVIDIA_VISIBLE_DEVICES']); time.sleep(600)"
    run_pod(cluster, namespace, pod(cluster, "two", code, gpus=2))
    wait_ready(cluster, namespace, "two")

    devices = cluster.kubectl("-n", namespace, "logs", "two").strip().split(",")

    assert len(set(devices)) == 2


def test_a_pod_that_asks_for_more_gpus_than_there_are_stays_pending(
    cluster: Cluster, namespace: str
) -> None:
    run_pod(cluster, namespace, pod(cluster, "greedy", "pass", gpus=GPUS + 1))

    def refused() -> bool:
        status = cluster.get("-n", namespace, "pod", "greedy")["status"]
        reasons = [c.get("message", "") for c in status.get("conditions", [])]
        return status["phase"] == "Pending" and any(
            f"Insufficient {GPU_RESOURCE}" in reason for reason in reasons
        )

    eventually(refused)


def test_a_service_name_resolves_and_answers_from_a_pod(cluster: Cluster, namespace: str) -> None:
    serve = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"
    run_pod(cluster, namespace, pod(cluster, "web", serve))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    cluster.apply(service)
    wait_ready(cluster, namespace, "web")
    ask = (
        "import urllib.request as u, time\n"
        "for _ in range(100):\n"
        "    try: print(u.urlopen('http://web', timeout=2).status); break\n"
        "    except OSError as error: print(error); time.sleep(0.2)\n"
        "time.sleep(600)"
    )
    run_pod(cluster, namespace, pod(cluster, "client", ask))
    wait_ready(cluster, namespace, "client")

    eventually(lambda: "200" in cluster.kubectl("-n", namespace, "logs", "client").split())


def test_logs_and_exec_work(cluster: Cluster, namespace: str) -> None:
    run_pod(
        cluster, namespace, pod(cluster, "talks", "print('hello'); import time; time.sleep(600)")
    )
    wait_ready(cluster, namespace, "talks")

    eventually(lambda: cluster.kubectl("-n", namespace, "logs", "talks") == "hello\n")
    done = cluster.kubectl("-n", namespace, "exec", "talks", "--", "hostname")
    assert done == "talks\n"
