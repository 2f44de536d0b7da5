"""What the chart renders when it is asked for more: TLS, Ingress, policies, monitors, CRDs."""

import json
import re
import tomllib

import pytest
import yaml

from cluster.config import REPOSITORY
from glowplug.api import meta
from glowplug.api.parsing import KINDS

CHART = REPOSITORY / "charts" / "glowplug"
CRDS = REPOSITORY / "charts" / "glowplug-crds"
WORKLOADS = ("glowplug-operator", "glowplug-gateway")


def only(objects: list[dict], kind: str, name: str) -> dict:
    [found] = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def pod_of(objects: list[dict], name: str) -> dict:
    return only(objects, "Deployment", name)["spec"]["template"]


def test_by_default_there_are_two_of_each_and_nothing_that_needs_more_than_kubernetes(
    render,
) -> None:
    objects = render()
    assert [only(objects, "Deployment", n)["spec"]["replicas"] for n in WORKLOADS] == [2, 2]
    kinds = {o["kind"] for o in objects}
    assert not kinds & {"Ingress", "NetworkPolicy", "ConfigMap"}
    assert not kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_drain_takes_one_pod_at_a_time_and_is_never_refused_for_good(render, name: str) -> None:
    objects = render(f"{name.removeprefix('glowplug-')}.replicas=1")
    budget = only(objects, "PodDisruptionBudget", name)["spec"]
    labels = pod_of(objects, name)["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1, "minAvailable 1 would refuse the drain of a single Pod"
    assert budget["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_spread_softly_by_zone_and_node(render, name: str) -> None:
    pod = pod_of(render(), name)
    spread = pod["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    for one in spread:
        assert one["whenUnsatisfiable"] == "ScheduleAnyway"
        assert one["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_go_where_they_are_told(render, name: str) -> None:
    part = name.removeprefix("glowplug-")
    pod = pod_of(
        render(
            f"{part}.nodeSelector.pool=system",
            f"{part}.tolerations[0].operator=Exists",
            f"{part}.priorityClassName=system-cluster-critical",
            f"{part}.podAnnotations.team=ml",
            "imagePullSecrets[0].name=registry",
        ),
        name,
    )
    assert pod["metadata"]["annotations"] == {"team": "ml"}
    assert pod["spec"]["nodeSelector"] == {"pool": "system"}
    assert pod["spec"]["tolerations"] == [{"operator": "Exists"}]
    assert pod["spec"]["priorityClassName"] == "system-cluster-critical"
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_tls_mounts_the_secret_and_moves_the_service_to_443(render) -> None:
    objects = render("gateway.tls.secretName=gateway-tls")
    pod = pod_of(objects, "glowplug-gateway")["spec"]
    [container] = pod["containers"]
    assert container["args"] == ["--tls-cert=/tls/tls.crt", "--tls-key=/tls/tls.key"]
    assert {"name": "tls", "mountPath": "/tls", "readOnly": True} in container["volumeMounts"]
    [volume] = [v for v in pod["volumes"] if v["name"] == "tls"]
    # 65532 is the group of the Pod, to which the kubelet gives the files.
    assert volume["secret"] == {"secretName": "gateway-tls", "defaultMode": 0o440}
    ports = only(objects, "Service", "glowplug-gateway")["spec"]["ports"]
    assert {p["name"]: p["port"] for p in ports} == {"https": 443, "admin": 9090}


@pytest.mark.parametrize(("secret", "port"), [("", "http"), ("gateway-tls", "https")])
def test_the_ingress_reaches_a_port_that_the_service_has(render, secret: str, port: str) -> None:
    objects = render(
        "ingress.enabled=true",
        "ingress.host=models.example.com",
        "ingress.className=nginx",
        "ingress.tlsSecretName=models-tls",
        f"gateway.tls.secretName={secret}",
    )
    ingress = only(objects, "Ingress", "glowplug-gateway")
    [rule] = ingress["spec"]["rules"]
    [path] = rule["http"]["paths"]
    backend = path["backend"]["service"]
    service = only(objects, "Service", backend["name"])
    assert rule["host"] == "models.example.com"
    assert backend["port"]["name"] == port
    assert port in {p["name"] for p in service["spec"]["ports"]}
    assert ingress["spec"]["tls"] == [{"hosts": ["models.example.com"], "secretName": "models-tls"}]
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    protocol = annotations.get("nginx.ingress.kubernetes.io/backend-protocol")
    assert protocol == ("HTTPS" if secret else None)


POLICIES = ("networkPolicy.enabled=true", "networkPolicy.modelNamespaces={a,b}")


def test_policies_select_the_pods_and_ports_that_there_are(render) -> None:
    objects = render(*POLICIES)
    for name in WORKLOADS:
        policy = only(objects, "NetworkPolicy", name)["spec"]
        pod = pod_of(objects, name)
        assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ports = {p["name"] for p in pod["spec"]["containers"][0]["ports"]}
        opened = {p["port"] for rule in policy["ingress"] for p in rule["ports"]}
        assert opened == ports


def test_replicas_take_connections_from_gateways_the_operator_and_prometheus(render) -> None:
    objects = render(*POLICIES)
    policies = [o for o in objects if o["metadata"]["name"] == "glowplug-replicas"]
    assert [p["metadata"]["namespace"] for p in policies] == ["a", "b"]
    spec = policies[0]["spec"]
    assert spec["podSelector"]["matchLabels"] == {
        meta.LABEL_MANAGED_BY: meta.MANAGER,
        meta.LABEL_COMPONENT: meta.COMPONENT_REPLICA,
    }
    gateways, operator, prometheus = spec["ingress"]
    for rule, name in ((gateways, "glowplug-gateway"), (operator, "glowplug-operator")):
        [peer] = rule["from"]
        assert peer["namespaceSelector"]["matchLabels"] == {
            "kubernetes.io/metadata.name": "glowplug-system"
        }
        labels = pod_of(objects, name)["metadata"]["labels"]
        assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    assert "ports" not in gateways, "requests and the launcher's state"
    assert operator["ports"] == [{"port": "launcher"}, {"port": "http"}]
    assert prometheus["ports"] == [{"port": "http"}]


def test_policies_take_the_peers_that_are_named(render) -> None:
    peer = "networkPolicy.clients[0].ipBlock.cidr=198.18.0.0/15"
    policy = only(render(*POLICIES, peer), "NetworkPolicy", "glowplug-gateway")["spec"]
    [clients] = [r for r in policy["ingress"] if r["ports"] == [{"port": "http"}]]
    assert clients["from"] == [{"ipBlock": {"cidr": "198.18.0.0/15"}}]
    closed = render(POLICIES[0], "networkPolicy.prometheus=null")
    operator = only(closed, "NetworkPolicy", "glowplug-operator")["spec"]
    assert not operator["ingress"], "nobody but the kubelet"


def test_monitors_name_ports_of_the_services(render) -> None:
    objects = render("monitoring.serviceMonitors=true", "monitoring.labels.release=stack")
    for name in WORKLOADS:
        monitor = only(objects, "ServiceMonitor", name)
        service = only(objects, "Service", name)
        selector = monitor["spec"]["selector"]["matchLabels"]
        assert selector.items() <= service["metadata"]["labels"].items()
        [endpoint] = monitor["spec"]["endpoints"]
        assert endpoint["port"] in {p["name"] for p in service["spec"]["ports"]}
        assert endpoint["honorLabels"] is True, "`namespace` is the model's, not the gateway's"
        assert monitor["metadata"]["labels"]["release"] == "stack"


def test_the_prometheus_rule_has_the_alerts_as_they_are_tested(render) -> None:
    rule = only(
        render("monitoring.prometheusRules=true", "monitoring.labels.release=stack"),
        "PrometheusRule",
        "glowplug",
    )
    assert rule["spec"] == yaml.safe_load((REPOSITORY / "dashboards/alerts.yaml").read_text())
    assert rule["metadata"]["labels"]["release"] == "stack"


def test_alerts_lead_to_the_runbooks_where_these_can_be_read(render) -> None:
    where = "https://git.example.com/runbooks"
    for given in (where, f"{where}/"):
        values = ("monitoring.prometheusRules=true", f"monitoring.runbooksUrl={given}")
        rule = only(render(*values), "PrometheusRule", "glowplug")
        alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
        assert {a["annotations"]["runbook_url"] for a in alerts} == {
            f"{where}/{a['alert']}.md" for a in alerts
        }


def test_the_dashboard_is_a_config_map_that_grafanas_sidecar_selects(render) -> None:
    found = only(render("grafana.dashboards=true"), "ConfigMap", "glowplug-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    dashboard = json.loads(found["data"]["glowplug.json"])
    assert dashboard == json.loads((REPOSITORY / "dashboards/glowplug.json").read_text())


REPLICAS = (
    '[{"model":"m","process":0,"port":8000,"launcherPort":9410,"healthPath":"/health",'
    '"metricsPath":"/prometheus/metrics","metrics":%s}]'
)


@pytest.mark.parametrize(("metrics", "kept"), [('"trtllm"', True), ("null", False)])
def test_the_pod_monitor_reads_an_engines_path_from_its_annotation(
    render, metrics: str, kept: bool
) -> None:
    monitor = only(render("monitoring.podMonitor=true"), "PodMonitor", "glowplug-engines")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    keep, path, model = endpoint["relabelings"]
    annotation = REPLICAS % metrics
    # Prometheus anchors the expression at both ends.
    assert (re.fullmatch(keep["regex"], annotation) is not None) is kept
    found = re.fullmatch(path["regex"], annotation)
    assert found is not None
    assert found[1] == "/prometheus/metrics"
    assert path["targetLabel"] == "__metrics_path__"
    assert model["targetLabel"] == "glowplug_model"
    assert (endpoint["port"], endpoint["interval"]) == ("http", "5s")


def test_charts_and_distributions_are_of_one_version() -> None:
    """The chart's default image tags are its appVersion, and the images report theirs."""
    versions = {
        str(yaml.safe_load((chart / "Chart.yaml").read_text())[key])
        for chart in (CHART, CRDS)
        for key in ("version", "appVersion")
    }
    for name in ("pyproject.toml", "snapshotter/pyproject.toml"):
        versions.add(tomllib.loads((REPOSITORY / name).read_text())["project"]["version"])
    assert len(versions) == 1, versions


def test_every_value_is_described() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    silent = [
        f"values.yaml:{number}: {line.strip()}"
        for number, (above, line) in enumerate(zip(["", *lines], lines, strict=False), 1)
        if re.match(r" *[a-zA-Z]+: +[^ ]", line)
        and not re.match(r" *(enabled|requests|limits):", line)
        and "#" not in line
        and not above.lstrip().startswith("#")
    ]
    assert silent == []


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, part in values.items():
        known = schema["properties"][name]
        if known["type"] == "object":
            assert known["additionalProperties"] is False
            assert set(known["properties"]) == set(part), name


@pytest.mark.parametrize(
    ("keep", "policy"),
    [
        (
            "true",
            {"helm.sh/resource-policy": "keep", "argocd.argoproj.io/sync-options": "Prune=false"},
        ),
        ("false", {}),
    ],
)
def test_the_crds_chart_renders_the_generated_crds(render, keep: str, policy: dict) -> None:
    crds = render(f"keep={keep}", chart=CRDS)
    assert len(crds) == len(KINDS)
    for crd in crds:
        name = f"{meta.GROUP}_{crd['spec']['names']['plural']}.yaml"
        generated = yaml.safe_load((REPOSITORY / "crds" / name).read_text())
        assert crd["spec"] == generated["spec"], "a template changed what was generated"
        assert crd["metadata"]["name"] == generated["metadata"]["name"]
        first = {"argocd.argoproj.io/sync-wave": "-10"}
        assert crd["metadata"]["annotations"] == first | policy
