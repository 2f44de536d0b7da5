"""The chart: what it installs, with which rights, and how it refuses wrong values."""

import pytest

from cluster.config import REPOSITORY
from glowplug.api import meta
from glowplug.control.operator import LEASE

CHART = REPOSITORY / "charts" / "glowplug"
WORKLOADS = ("glowplug-operator", "glowplug-gateway")


def find(objects: list[dict], kind: str, name: str) -> dict:
    [found] = [o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def container(objects: list[dict], name: str) -> dict:
    [only] = find(objects, "Deployment", name)["spec"]["template"]["spec"]["containers"]
    return only


def grants(objects: list[dict], kind: str, name: str) -> set[tuple[str, str, str]]:
    """All (API group, resource, verb) of a role, rights on one object by name left out."""
    return {
        (group, resource, verb)
        for rule in find(objects, kind, name)["rules"]
        if "resourceNames" not in rule
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_charts_carry_the_generated_crds() -> None:
    generated = {path.name: path.read_text() for path in (REPOSITORY / "crds").glob("*.yaml")}
    assert generated
    for folder in (CHART / "crds", CHART.with_name("glowplug-crds") / "files"):
        carried = {path.name: path.read_text() for path in folder.glob("*.yaml")}
        assert carried == generated, "run `make crds`"


def test_the_chart_carries_the_dashboard_and_the_alerts() -> None:
    for name in ("alerts.yaml", "glowplug.json"):
        carried = (CHART / "files" / name).read_text()
        assert carried == (REPOSITORY / "dashboards" / name).read_text(), "run `make crds`"


@pytest.mark.parametrize("name", ["glowplug", "glowplug-crds"])
def test_it_lints(helm, name: str) -> None:
    done = helm("lint", "--strict", REPOSITORY / "charts" / name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.repository=", "repository"),
        ("prometheus.url=prometheus:9090", "/prometheus/url"),
        ("store.url=bucket", "/store/url"),
        ("store.endpoint=seaweedfs:8333", "/store/endpoint"),
        ("store.secret=x", "secret"),
        ("operator.replicas=many", "/operator/replicas"),
        ("gateway.replicas=-1", "/gateway/replicas"),
        ("gatway.replicas=2", "gatway"),
        ("gateway.tls.secretName=Not_A_Name", "/gateway/tls/secretName"),
        ("imagePullSecrets[0]=registry", "/imagePullSecrets/0"),
        ("ingress.enabled=true", "/ingress/host"),
        ("networkPolicy.clients[0].namespace=x", "/networkPolicy/clients/0"),
        ("networkPolicy.modelNamespaces=x", "/networkPolicy/modelNamespaces"),
        ("monitoring.engineInterval=fast", "/monitoring/engineInterval"),
        ("monitoring.runbooksUrl=docs", "/monitoring/runbooksUrl"),
        ("grafana.dashboards=glowplug", "/grafana/dashboards"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm, value: str, named: str) -> None:
    done = helm("template", "gp", CHART, "--set", value)
    assert done.returncode != 0
    assert named in done.stderr


def test_the_operator_gets_what_is_set_and_nothing_else(render) -> None:
    assert container(render(), "glowplug-operator")["args"] == [
        "--port=8080",
        "--snapshotter-image=docker.io/glowplug/snapshotter:0.2.0",
    ]
    objects = render(
        "snapshotter.image.tag=dev",
        "prometheus.url=http://prometheus:9090",
        "store.url=s3://bucket/snapshots",
        "store.endpoint=http://seaweedfs:8333",
        "store.secretName=glowplug-store",
    )
    assert container(objects, "glowplug-operator")["args"] == [
        "--port=8080",
        "--snapshotter-image=docker.io/glowplug/snapshotter:dev",
        "--prometheus-url=http://prometheus:9090",
        "--store-url=s3://bucket/snapshots",
        "--store-endpoint=http://seaweedfs:8333",
        "--store-secret=glowplug-store",
    ]


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_meet_the_restricted_standard(render, name: str) -> None:
    objects = render()
    pod = find(objects, "Deployment", name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(objects, name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container(objects, name)["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]


@pytest.mark.parametrize("name", WORKLOADS)
def test_probes_and_services_meet_a_port_of_the_container(render, name: str) -> None:
    objects = render()
    ports = {port["name"]: port["containerPort"] for port in container(objects, name)["ports"]}
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container(objects, name)[probe]["httpGet"]["port"] in ports
    service = find(objects, "Service", name)
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    labels = find(objects, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_the_gateways_service_is_the_one_that_the_operator_looks_for(render) -> None:
    service = find(render(), "Service", meta.GATEWAY_SERVICE)
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert ports == {"http": 80, "admin": 9090}


def test_a_gateway_has_longer_to_stop_than_it_takes(render) -> None:
    objects = render("gateway.drainSeconds=120")
    pod = find(objects, "Deployment", "glowplug-gateway")["spec"]["template"]["spec"]
    pause = container(objects, "glowplug-gateway")["lifecycle"]["preStop"]["sleep"]["seconds"]
    environment = {e["name"]: e.get("value") for e in container(objects, "glowplug-gateway")["env"]}
    drain = int(environment["GLOWPLUG_GATEWAY_GRACE"])
    assert drain == 120
    assert pod["terminationGracePeriodSeconds"] > pause + drain


# What the code asks for, as (API group, resource): verbs. A right nobody uses has no place here.
OPERATOR_CLUSTER = {
    (meta.GROUP, "modeldeployments"): {"list", "watch"},
    (meta.GROUP, "modelsnapshots"): {"list", "watch", "create"},
    (meta.GROUP, "gpupools"): {"list", "watch"},
    (meta.GROUP, "modeldeployments/status"): {"patch"},
    (meta.GROUP, "modelsnapshots/status"): {"patch"},
    (meta.GROUP, "gpupools/status"): {"patch"},
    ("", "pods"): {"get", "list", "watch", "create", "patch", "delete"},
    ("", "services"): {"get", "list", "watch", "create", "patch"},
    ("", "configmaps"): {"create", "patch"},
    ("", "nodes"): {"list", "watch"},
    ("batch", "jobs"): {"get", "create", "delete"},
    ("events.k8s.io", "events"): {"create"},
}
OPERATOR_OWN_NAMESPACE = {
    ("coordination.k8s.io", "leases"): {"get", "create", "patch"},
    ("discovery.k8s.io", "endpointslices"): {"list", "watch"},
}
GATEWAY = {
    (meta.GROUP, "modeldeployments"): {"list", "watch"},
    ("", "pods"): {"list", "watch"},
}


# Not used, but asked for by an admission plugin of OpenShift of who changes owners.
OWNERS = {
    ("", "configmaps"): meta.LAUNCHER_CONFIGMAP,
    ("coordination.k8s.io", "leases"): LEASE,
}


@pytest.mark.parametrize(
    ("kind", "name", "used"),
    [
        ("ClusterRole", "glowplug-operator", OPERATOR_CLUSTER),
        ("Role", "glowplug-operator", OPERATOR_OWN_NAMESPACE),
        ("ClusterRole", "glowplug-gateway", GATEWAY),
    ],
)
def test_rights_are_those_that_are_used(render, kind: str, name: str, used: dict) -> None:
    expected = {(*what, verb) for what, verbs in used.items() for verb in verbs}
    assert grants(render(), kind, name) == expected


@pytest.mark.parametrize("kind", ["ClusterRole", "Role"])
def test_only_objects_whose_owners_change_may_be_deleted_by_name(render, kind: str) -> None:
    rules = find(render(), kind, "glowplug-operator")["rules"]
    [named] = [rule for rule in rules if "resourceNames" in rule]
    [group], [resource] = named["apiGroups"], named["resources"]
    assert named["resourceNames"] == [OWNERS[group, resource]]
    assert named["verbs"] == ["delete"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_role_is_bound_to_its_own_account(render, name: str) -> None:
    objects = render()
    pod = find(objects, "Deployment", name)["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == find(objects, "ServiceAccount", name)["metadata"]["name"]
    bindings = [
        o for o in objects if o["kind"].endswith("Binding") and o["roleRef"]["name"] == name
    ]
    assert bindings
    for binding in bindings:
        account = {"kind": "ServiceAccount", "name": name, "namespace": "glowplug-system"}
        assert binding["subjects"] == [account]


def test_notes_tell_the_next_command_and_what_is_not_set(helm) -> None:
    done = helm("install", "gp", CHART, "-n", "somewhere", "--dry-run=client")
    assert done.returncode == 0, done.stderr
    assert "kubectl -n somewhere rollout status deployment/glowplug-operator" in done.stdout
    assert "prometheus.url is not set" in done.stdout
    assert "store.url is not set" in done.stdout
