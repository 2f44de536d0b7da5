"""The nodes' cache in the chart: off by default, in a namespace of its own, with few rights."""

import argparse
import base64

import pytest

from glowplug.control import main as operator
from glowplug_snapshotter.cache import command

ENABLED = (
    "cache.enabled=true",
    "store.url=s3://bucket/snapshots",
    "store.endpoint=http://seaweedfs:8333",
    "store.secretName=glowplug-store",
)


def only(objects: list[dict], kind: str, name: str, namespace: str | None = None) -> dict:
    [found] = [
        o
        for o in objects
        if (o["kind"], o["metadata"]["name"]) == (kind, name)
        and namespace in (None, o["metadata"].get("namespace"))
    ]
    return found


def daemon(objects: list[dict]) -> dict:
    return only(objects, "DaemonSet", "glowplug-cache")["spec"]["template"]["spec"]


def operator_pod(objects: list[dict]) -> dict:
    return only(objects, "Deployment", "glowplug-operator")["spec"]["template"]["spec"]


def test_by_default_there_is_none(render) -> None:
    objects = render("store.url=s3://bucket/snapshots")
    assert not [o for o in objects if "cache" in o["metadata"]["name"]]
    assert not [a for a in operator_pod(objects)["containers"][0]["args"] if "cache" in a]


def test_it_needs_a_store(helm) -> None:
    done = helm("template", "gp", "charts/glowplug", "--set", "cache.enabled=true")
    assert done.returncode != 0
    assert "/store/url" in done.stderr


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("cache.budget=", "/cache/budget"),
        ("cache.budget=much", "/cache/budget"),
        ("cache.path=relative", "/cache/path"),
        ("cache.path=/", "/cache/path"),
        ("cache.namespace=", "/cache/namespace"),
        ("cache.mapping=true", "mapping"),
    ],
)
def test_a_wrong_value_is_refused_by_name(helm, value: str, named: str) -> None:
    settings = [word for one in (*ENABLED, value) for word in ("--set", one)]
    done = helm("template", "gp", "charts/glowplug", *settings)
    assert done.returncode != 0
    assert named in done.stderr


def test_both_programs_understand_what_they_are_given(render) -> None:
    objects = render(*ENABLED, "cache.budget=400Gi", "cache.peerBandwidth=1Gi")
    [container] = daemon(objects)["containers"]
    parser = argparse.ArgumentParser()
    command.options(parser)
    given = parser.parse_args(container["args"])
    assert (given.store, given.endpoint) == (ENABLED[1][10:], ENABLED[2][15:])
    assert (given.budget, given.peer_bandwidth) == (400 * 2**30, 2**30)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": given.port, "peers": given.peer_port}

    told = operator._parser().parse_args(operator_pod(objects)["containers"][0]["args"])
    assert told.cache_url == "http://glowplug-cache.glowplug-cache"
    assert told.cache_service == given.peers_service == "glowplug-cache/glowplug-cache-peers"


@pytest.mark.parametrize("made", ["true", "false"])
def test_its_namespace_is_made_and_labelled_unless_it_is_there(render, made: str) -> None:
    objects = render(*ENABLED, f"cache.createNamespace={made}")
    labels = [o["metadata"]["labels"] for o in objects if o["kind"] == "Namespace"]
    assert len(labels) == (made == "true")
    for one in labels:
        assert one["pod-security.kubernetes.io/enforce"] == "privileged"


def test_pods_reach_their_own_nodes_daemon_only(render) -> None:
    objects = render(*ENABLED)
    service = only(objects, "Service", "glowplug-cache")["spec"]
    assert service["internalTrafficPolicy"] == "Local"
    assert only(objects, "Service", "glowplug-cache-peers")["spec"]["clusterIP"] == "None"
    labels = only(objects, "DaemonSet", "glowplug-cache")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


def test_the_daemon_runs_without_rights_but_for_its_directory(render) -> None:
    pod = daemon(render(*ENABLED, "cache.path=/mnt/nvme/glowplug"))
    [container], [prepare] = pod["containers"], pod["initContainers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert prepare["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert prepare["command"] == ["chown", "65532:65532", "/cache"]
    paths = [v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v]
    assert paths == ["/mnt/nvme/glowplug"]


def test_it_reads_endpointslices_of_its_own_namespace_and_nothing_else(render) -> None:
    objects = render(*ENABLED, "cache.namespace=caches")
    role = only(objects, "Role", "glowplug-cache", "caches")
    assert role["rules"] == [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["list", "watch"],
        }
    ]
    bound = only(objects, "RoleBinding", "glowplug-cache", "caches")["subjects"]
    accounts = {(one["namespace"], one["name"]) for one in bound}
    assert accounts == {("caches", "glowplug-cache"), ("glowplug-system", "glowplug-operator")}
    assert not [o for o in objects if o["kind"] == "ClusterRole" and "cache" in str(o["metadata"])]


def test_one_key_is_mounted_on_both_sides_and_named_in_no_argument(render) -> None:
    objects = render(*ENABLED)
    keys = {
        namespace: only(objects, "Secret", "glowplug-cache-key", namespace)["data"]["key"]
        for namespace in ("glowplug-system", "glowplug-cache")
    }
    [key] = set(keys.values())
    assert len(base64.b64decode(key)) >= 32
    for pod in (daemon(objects), operator_pod(objects)):
        [volume] = [v["secret"] for v in pod["volumes"] if "secret" in v]
        assert volume == {"secretName": "glowplug-cache-key", "defaultMode": 0o440}
        assert key not in str(pod)


def test_a_key_of_ones_own_is_used_and_none_is_made(render) -> None:
    objects = render(*ENABLED, "cache.keySecretName=shared")
    assert not [o for o in objects if o["kind"] == "Secret"]
    [volume] = [v["secret"] for v in daemon(objects)["volumes"] if "secret" in v]
    assert volume["secretName"] == "shared"


def test_policies_let_in_replicas_peers_and_the_operator(render) -> None:
    objects = render(*ENABLED, "networkPolicy.enabled=true")
    spec = only(objects, "NetworkPolicy", "glowplug-cache", "glowplug-cache")["spec"]
    pods, peers = spec["ingress"]
    assert pods["ports"] == [{"port": "http"}]
    assert pods["from"] == [
        {
            "namespaceSelector": {},
            "podSelector": {
                "matchLabels": {
                    "app.kubernetes.io/managed-by": "glowplug",
                    "app.kubernetes.io/component": "replica",
                }
            },
        }
    ]
    assert peers["ports"] == [{"port": "peers"}]
    components = [
        one["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for one in peers["from"]
        if "podSelector" in one
    ]
    assert components == ["cache", "operator"]


def test_the_daemons_are_scraped(render) -> None:
    monitor = only(
        render(*ENABLED, "monitoring.serviceMonitors=true"), "ServiceMonitor", "glowplug-cache"
    )
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["glowplug-cache"]}
    assert [one["port"] for one in monitor["spec"]["endpoints"]] == ["peers"]
