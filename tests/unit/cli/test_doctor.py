"""What the doctor finds, check by check, in clusters that are wrong in one way each."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from glowplug.cli.doctor import capacity, gather, install, prometheus, rights, store
from glowplug.cli.doctor.checks import CHECKS, Report, as_json
from glowplug.cli.doctor.finding import Cluster, Finding, Installed, Options, bad, ok, warn
from glowplug.kube import Client

NOBODY = cast(Client, None)  # these checks ask nothing
REPOSITORY = Path(__file__).parents[3]


def node(name: str, gpus: int = 0, *, cordoned: bool = False, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"unschedulable": True} if cordoned else {},
        "status": {"allocatable": {"cpu": "8", "nvidia.com/gpu": str(gpus)}},
    }


def pool(name: str = "default", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


def model(ready: int = 0, engine: str = "vllm", **gpu: Any) -> dict[str, Any]:
    return {
        "apiVersion": "glowplug.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "smol", "namespace": "ns", "uid": "u", "resourceVersion": "1"},
        "spec": {"model": {"source": "s3://m/x"}, "engine": {"type": engine}, "gpu": gpu},
        "status": {"readyReplicas": ready},
    }


def cluster(**parts: Any) -> Cluster:
    return Cluster(NOBODY, Options(), **parts)


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("nodes", "models", "level"),
    [
        ([node("a", 4), node("b")], [model()], "ok"),
        ([node("a")], [model()], "fail"),
        ([node("a")], [], "warn"),
        ([node("a")], [model(count=0)], "warn"),
        ([node("a", 4)], [model(resource="nvidia.com/mig-1g.10gb")], "fail"),
        (None, [model()], "warn"),
    ],
)
async def test_gpus(nodes: Any, models: Any, level: str) -> None:
    assert levels(await capacity.gpus(cluster(nodes=nodes, models=models))) == [level]


RUNGS = [
    {"name": "own", "nodeSelector": {"tier": "own"}},
    {"name": "spot", "nodeSelector": {"tier": "spot"}},
]


@pytest.mark.parametrize(
    ("pools", "models", "found"),
    [
        ([], [], ["ok"]),
        ([pool(default=True)], [], ["ok"]),
        ([pool(default=True, nodeSelector={"zone": "a"})], [], ["ok"]),
        ([pool(default=True, nodeSelector={"zone": "b"})], [], ["fail"]),
        ([pool(default=True, nodeSelector={"zone": "c"})], [], ["fail"]),  # cordoned
        ([pool(default=True, ladder=RUNGS)], [], ["ok", "warn"]),
        ([pool(default=True, ladder=RUNGS[1:])], [], ["fail"]),
        ([pool()], [model()], ["fail", "ok"]),  # nobody's default
        ([pool()], [model(pool="default")], ["ok"]),
        ([pool("a", default=True), pool("b", default=True)], [], ["warn", "ok", "ok"]),
    ],
)
async def test_pools(pools: Any, models: Any, found: list[str]) -> None:
    nodes = [node("a", zone="a", tier="own"), node("c", zone="c", cordoned=True)]
    seen = await capacity.pools(cluster(pools=pools, models=models, nodes=nodes))
    assert levels(seen) == found


def deployment(available: int, wanted: int = 2) -> dict[str, Any]:
    pod = {
        "serviceAccountName": "glowplug-operator",
        "containers": [
            {
                "args": ["--store-url=s3://b/p?x=1", "--verbose"],
                "env": [{"name": "GLOWPLUG_PROMETHEUS_URL", "value": "http://p.mon:9090"}],
            }
        ],
    }
    return {
        "metadata": {"name": "glowplug-operator", "namespace": "gp"},
        "spec": {"replicas": wanted, "template": {"spec": pod}},
        "status": {"availableReplicas": available},
    }


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (None, "warn"),
        ([], "fail"),
        ([deployment(0)], "fail"),
        ([deployment(1)], "warn"),
        ([deployment(2)], "ok"),
    ],
)
async def test_deployments(found: Any, level: str) -> None:
    assert levels(await install.gateway(cluster(gateways=found))) == [level]
    assert levels(await install.operator(cluster(operators=found))) == [level]


def test_flags_come_from_arguments_and_variables() -> None:
    assert gather.installed(deployment(1)) == Installed(
        namespace="gp",
        service_account="glowplug-operator",
        flags={"store-url": "s3://b/p?x=1", "prometheus-url": "http://p.mon:9090"},
    )


@pytest.mark.parametrize(
    ("spec", "level"),
    [
        ({"holderIdentity": "a", "renewTime": "2026-11-23T12:00:00.000000Z"}, "ok"),
        ({"holderIdentity": "a", "renewTime": "2026-11-23T11:59:00.000000Z"}, "fail"),
        ({"holderIdentity": "", "renewTime": "2026-11-23T12:00:00.000000Z"}, "fail"),
        ({}, "fail"),
    ],
)
def test_a_leader_renews(spec: dict[str, Any], level: str) -> None:
    now = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
    lease = {"spec": {"leaseDurationSeconds": 15, **spec}}
    assert install.leader(lease, now, "Look.").level == level


def sample(age: float, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [0, str(age)]}


NAMED = {"namespace": "ns", "glowplug_model": "smol"}


@pytest.mark.parametrize(
    ("answer", "ready", "level"),
    [
        ([sample(2, **NAMED)], 1, "ok"),
        ([sample(2, **NAMED), sample(40, **NAMED)], 1, "warn"),
        ([sample(float("nan"), **NAMED)], 1, "warn"),
        ([sample(2, job="vllm")], 1, "fail"),
        ([], 1, "fail"),
        ([], 0, "ok"),
    ],
)
def test_samples_of_a_dialect(answer: Any, ready: int, level: str) -> None:
    series = prometheus.series_of("vllm")
    assert series is not None
    assert prometheus.judge("vllm", series, answer, ready, "gp").level == level


def test_dialects_in_use_and_an_invalid_object_is_passed_over() -> None:
    broken = model()
    broken["spec"]["model"] = {"source": 3}
    seen = prometheus.dialects([model(2), model(1), model(0, "sglang"), broken])
    assert seen == {"vllm": 3, "sglang": 0}


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("http://prometheus.monitoring:9090", ("prometheus", "monitoring")),
        ("http://p.mon.svc.cluster.local/prom", ("p", "mon")),
        ("https://prometheus.example.com", None),
        ("http://10.0.0.1:9090", None),
        ("http://prometheus:9090", None),
    ],
)
def test_a_service_is_told_from_a_host(url: str, service: Any) -> None:
    assert prometheus.service_of(url) == service


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", b"[]", b'{"status":"error","error":"x"}', b'{"status":"success","data":{}}'],
)
def test_an_answer_that_is_not_prometheus(data: bytes) -> None:
    with pytest.raises(prometheus.SilentError):
        prometheus.result_of(data)


async def test_a_store_without_credentials_says_which_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    flags = {"store-url": "s3://b/p", "store-secret": "keys"}
    [finding] = await store.store(cluster(installed=Installed("gp", "sa", flags)))
    assert finding.level == "warn"
    assert "--secret keys" in finding.advice
    [none] = await store.store(cluster(installed=Installed("gp", "sa", {})))
    assert none.level == "ok"


def test_the_doctor_asks_for_what_the_chart_grants() -> None:
    """The rules stand in the templates without any expression, so they read as YAML."""
    text = (REPOSITORY / "charts/glowplug/templates/operator-rbac.yaml").read_text()
    plain = "\n".join(line for line in text.splitlines() if "{{" not in line)
    granted = {
        (group, resource, verb)
        for document in yaml.safe_load_all(plain)
        for rule in (document or {}).get("rules") or ()
        if "resourceNames" not in rule  # asked for by OpenShift only
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    asked = {(r.group, r.resource, verb) for r in rights.OPERATOR for verb in r.verbs}
    assert asked == granted


async def test_a_store_that_this_machine_does_not_know_is_asked_from_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(name, value)
    flags = {"store-url": "s3://b/p", "store-endpoint": "http://seaweedfs.invalid:8333"}
    [finding] = await store.store(cluster(installed=Installed("gp", "sa", flags)))
    assert finding.level == "warn"
    # The operator's service account may not read the Deployment, so the command has to say it all.
    assert "kubectl -n gp exec deploy/glowplug-operator" in finding.advice
    assert "--store-url s3://b/p --store-endpoint http://seaweedfs.invalid:8333" in finding.advice


async def test_a_pool_for_every_node_gives_no_selector_that_kubectl_would_refuse() -> None:
    [found] = await capacity.pools(cluster(pools=[pool(default=True)], models=[], nodes=[]))
    assert found == bad("GPUPool default matches every node, and there is none.", "Add nodes.")


def test_one_failure_fails_the_report_and_json_has_every_finding() -> None:
    good = Report([("crds", ok("Fine.")), ("pools", warn("Odd.", "Look."))])
    assert not good.failed
    failed = Report([*good.findings, ("store", bad("Gone.", "Make it."))])
    assert failed.failed
    assert as_json(failed)["ok"] is False
    assert as_json(good)["findings"] == [
        {"check": "crds", "level": "ok", "sentence": "Fine.", "advice": ""},
        {"check": "pools", "level": "warn", "sentence": "Odd.", "advice": "Look."},
    ]


def test_names_of_checks_are_told_once() -> None:
    assert len({name for name, _ in CHECKS}) == len(CHECKS)
