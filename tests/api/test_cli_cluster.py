"""`glowplug top`, `timeline`, `status NAME` and `doctor` against a real API server.

The operator's port is the operator's own code, reached as a user reaches it: through the API
server's proxy, at an address of the benchmark range.
"""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from cluster.config import REPOSITORY, paths
from glowplug.cli.main import app
from glowplug.control.gauges import Figures
from glowplug.control.metrics import Metrics
from glowplug.control.server import application
from glowplug.observe import ColdStart

IP = f"198.18.253.{1 + os.getpid() % 250}"  # its own for each test run
Kubectl = Callable[..., str]
LABELS = {"app.kubernetes.io/name": "glowplug", "app.kubernetes.io/component": "operator"}
IN_FLIGHT: dict[str, int] = {}
STARTS = [
    ColdStart("default/live", "u", 2.0, {"restore": 1.5, "load": 0.5}, {}, "cold", 1_000_000.0),
    ColdStart("default/live", "v", 4.0, {"restore": 3.0, "load": 1.0}, {}, "cold", 999_000.0),
]


@pytest.fixture(scope="module")
def kubectl(apiserver: Path) -> Kubectl:
    def run(*words: str, stdin: object = None) -> str:
        command = [paths().bin / "kubectl", "--kubeconfig", apiserver, *words]
        text = json.dumps(stdin) if stdin is not None else None
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def glowplug(apiserver: Path) -> Callable[..., Result]:
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--kubeconfig", str(apiserver)])

    return run


@pytest.fixture(scope="module")
def operator_port() -> Iterator[None]:
    """The operator's own HTTP application on the port that its Pods have."""
    if os.geteuid() != 0:
        pytest.skip("adding an address to the loopback interface needs root")
    subprocess.run(["ip", "addr", "replace", f"{IP}/32", "dev", "lo"], check=True)
    metrics = Metrics(list)
    metrics.watch(lambda: 0, lambda: 0.0, lambda: True)
    figures = Figures(1, {"hot": 1}, {"running": 5.0, "waiting": 2.0, "held": 0.0}, 1.2)
    metrics.show("default/live", figures, promise=None)
    served = application(
        metrics.registry, lambda: (), lambda _: STARTS, lambda _: IN_FLIGHT, lambda: True
    )
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(served)
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, IP, 8080).start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
    subprocess.run(["ip", "addr", "del", f"{IP}/32", "dev", "lo"], check=True)


def pod(name: str, labels: dict[str, str], ip: str = IP) -> tuple[dict[str, Any], str]:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "none"}], "nodeName": "nowhere"},
    }
    ready = {"type": "Ready", "status": "True"}
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [ready]}
    return body, json.dumps({"status": status})


@pytest.fixture(scope="module")
def live(kubectl: Kubectl, operator_port: None) -> Iterator[str]:
    """A model with one new and one old replica, and an operator's Pod that answers."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
    kubectl("wait", "--for=condition=Established", "-f", str(REPOSITORY / "crds"))
    body = {
        "apiVersion": "glowplug.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "live", "namespace": "default"},
        "spec": {"model": {"source": "s3://models/live"}},
    }
    kubectl("apply", "-f", "-", stdin=body)
    status = {"revision": "new", "replicas": 2, "readyReplicas": 2}
    kind = "modeldeployments.glowplug.dev"
    patch = ("--subresource=status", "--type=merge", "-p")
    kubectl("patch", kind, "live", *patch, json.dumps({"status": status}))
    replica = {"glowplug.dev/model": "live", "app.kubernetes.io/component": "replica"}
    pods = {
        "gp-operator": LABELS,
        "live-new-0": replica | {"glowplug.dev/revision": "new"},
        "live-old-0": replica | {"glowplug.dev/revision": "old"},
        "live-old-1": replica | {"glowplug.dev/revision": "old", "glowplug.dev/state": "draining"},
    }
    for name, labels in pods.items():
        made, told = pod(name, labels)
        kubectl("apply", "-f", "-", stdin=made)
        kubectl("patch", "pod", name, *patch, told)
    uid = kubectl("get", "pod", "live-old-1", "-o", "jsonpath={.metadata.uid}")
    IN_FLIGHT[uid] = 4
    yield "live"
    kubectl("delete", "pods", "--grace-period=0", "--force", *pods)
    kubectl("delete", kind, "live")


def named(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """The one model of that name: other tests leave models of their own in the namespace."""
    [model] = [model for model in data["models"] if model["name"] == name]
    return model


def test_top_reads_the_leader_through_the_api_server(glowplug, live: str) -> None:
    shown = glowplug("top", "--once")
    assert shown.exit_code == 0, shown.output
    assert "operator gp-operator" in shown.stdout
    [line] = [line.split() for line in shown.stdout.splitlines() if line.startswith(live)]
    assert line[-5:] == ["7", "5", "2", "0", "-"]
    model = named(live, json.loads(glowplug("top", "-A", "--json").stdout))
    assert (model["demand"], model["running"], model["waiting"]) == (7, 5, 2)


def test_top_asks_a_url_where_one_is_given(glowplug, live: str) -> None:
    given = glowplug("top", "--json", "--metrics-url", f"http://{IP}:8080/metrics")
    assert named(live, json.loads(given.stdout))["demand"] == 7
    wrong = json.loads(glowplug("top", "--json", "--metrics-url", f"http://{IP}:8080/no").stdout)
    assert "gives no metrics of the operator" in wrong["operator"]["trouble"]
    assert named(live, wrong)["demand"] is None


def test_top_draws_again_until_it_is_interrupted(apiserver: Path, live: str) -> None:
    ours, theirs = pty.openpty()
    words = ["top", "--interval", "0.5", "--kubeconfig", str(apiserver)]
    program = [sys.executable, "-m", "glowplug.cli.main", *words]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "140"}
    with subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as shown:
        os.close(theirs)
        drawn = b""
        while drawn.count(b"DEMAND") < 2:
            drawn += os.read(ours, 65536)
        shown.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal ends with its last user
            while os.read(ours, 65536):
                pass
        assert shown.wait(60) == 0
    os.close(ours)
    assert live.encode() in drawn


def test_status_of_one_shows_its_rollout(glowplug, live: str) -> None:
    told = "Rolling out: 1 updated (all ready), 1 old serving, 1 old draining (4 in flight)."
    assert told in glowplug("status", live).stdout
    rollout = json.loads(glowplug("status", live, "--json").stdout)["rollout"]
    assert [(r["name"], r["updated"], r["ready"], r["leaving"]) for r in rollout] == [
        ("new", True, 1, 0),
        ("old", False, 1, 4),
    ]


def test_timeline_has_the_starts_that_the_operator_remembers(glowplug, live: str) -> None:
    shown = glowplug("timeline", live).stdout
    assert "1970-01-12T13:46:38Z" in shown
    assert "r" * 30 + "L" * 10 in shown
    recent = json.loads(glowplug("timeline", live, "--json").stdout)["recent"]
    assert [start["total"] for start in recent] == [2.0, 4.0]


def test_explain_speaks_json(glowplug, live: str) -> None:
    data = json.loads(glowplug("explain", live, "--json").stdout)
    assert data["readyReplicas"] == 2
    assert "No decision has been taken yet." in data["sentences"]


def found(result: Result) -> dict[str, list[dict[str, str]]]:
    checks: dict[str, list[dict[str, str]]] = {}
    for finding in json.loads(result.stdout)["findings"]:
        checks.setdefault(finding["check"], []).append(finding)
    return checks


def test_doctor_knows_the_crds_and_misses_the_rest(glowplug, live: str) -> None:
    result = glowplug("doctor", "--json")
    assert result.exit_code == 1, result.output
    checks = found(result)
    assert [f["level"] for f in checks["crds"]] == ["ok"] * 3
    assert checks["operator"][0]["sentence"] == "There is no operator in this cluster."
    assert checks["your rights"][0]["level"] == "ok"
    assert checks["gpus"][0]["level"] == "fail"
    assert "✗ gateway: There is no gateway in this cluster." in glowplug("doctor").stdout


def deployment() -> dict[str, Any]:
    labels = LABELS | {"doctor": "test"}
    container = {"name": "operator", "image": "none", "args": ["--prometheus-url=http://p.gone:1"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gp-operator", "namespace": "default", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"serviceAccountName": "nobody", "containers": [container]},
            },
        },
    }


def test_doctor_judges_what_is_installed(glowplug, kubectl: Kubectl, live: str) -> None:
    kubectl("apply", "-f", "-", stdin=deployment())
    try:
        checks = found(glowplug("doctor", "--json"))
    finally:
        kubectl("delete", "deployment", "gp-operator")
    assert checks["operator"][0]["sentence"].startswith("0 of 1 replicas")
    assert checks["operator"][1]["sentence"] == "No operator has ever led: there is no Lease."
    lacking = checks["operator's rights"][0]
    assert lacking["level"] == "fail"
    assert "service account nobody lacks" in lacking["sentence"]
    assert "create/patch/delete on pods" in lacking["sentence"]
    assert checks["store"][0]["level"] == "ok"  # none is configured
    silent = checks["prometheus"][0]
    assert silent["level"] == "fail"
    assert "p.gone:1 does not answer" in silent["sentence"]
