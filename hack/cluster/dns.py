"""Service names for pods: CoreDNS on the host, found through a Service without a selector."""

import json
from typing import Any

from cluster.config import DNS_IP, DNS_PORT, DOMAIN, NODE_IP, Paths
from cluster.control_plane import ApiServer
from cluster.processes import Daemon, write_config

USER = "glowplug:dns"
READY_PORT = 10054


def daemon(paths: Paths, server: ApiServer) -> Daemon:
    """The CoreDNS process; other names go to the machine's own resolver."""
    access = server.kubeconfig("dns.kubeconfig", USER)
    corefile = paths.root / "Corefile"
    write_config(
        corefile,
        f""".:{DNS_PORT} {{
    bind {NODE_IP}
    ready 127.0.0.1:{READY_PORT}
    errors
    cache 5
    kubernetes {DOMAIN} {{
        kubeconfig {access}
        ttl 5
    }}
    forward . /etc/resolv.conf
}}
""",
    )
    argv = [str(server.binaries / "dns"), "-conf", str(corefile)]
    return Daemon("dns", argv, paths.root, inputs=(corefile, access))


def objects() -> list[dict[str, Any]]:
    """What the API server must hold: the Service, its endpoint, and CoreDNS' rights."""
    reads = [
        {"apiGroups": [""], "resources": ["namespaces", "services", "pods"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"]},
    ]
    ports = [{"name": name, "port": 53, "protocol": name.upper()} for name in ("udp", "tcp")]
    return [
        cluster_role(USER, [rule | {"verbs": ["list", "watch"]} for rule in reads]),
        bind_user(USER, USER),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {
                "clusterIP": DNS_IP,
                "ports": [port | {"targetPort": DNS_PORT} for port in ports],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "ports": [port | {"port": DNS_PORT} for port in ports],
            "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
        },
    ]


def cluster_role(name: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    """A ClusterRole."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }


def bind_user(role: str, user: str) -> dict[str, Any]:
    """A ClusterRoleBinding of one user."""
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"glowplug:{user.removeprefix('glowplug:')}"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }


def as_list(items: list[dict[str, Any]]) -> str:
    """The objects as one List for `kubectl apply`."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
