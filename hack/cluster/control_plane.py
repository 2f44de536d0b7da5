"""Command lines of etcd, the API server, the controller manager and the scheduler."""

import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from cluster.certs import Authority, kubeconfig, service_account_key
from cluster.config import API_SERVICE_IP, DOMAIN, NODE_IP, POD_CIDR, SERVICE_CIDR
from cluster.processes import Daemon, write_config

# Who wrote what, and what every service account asked for: RBAC can be checked against it.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True)
class ApiServer:
    """One etcd and one API server whose whole state lies in `directory`."""

    binaries: Path
    directory: Path
    address: str
    port: int
    etcd_port: int
    etcd_peer_port: int
    node: bool = True  # false: no kubelets, no controllers, as in tests of the API alone

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"https://{self.address}:{self.port}"

    @property
    def authority(self) -> Authority:
        """Signs the certificates of clients and servers."""
        return Authority(self.directory / "pki", "ca")

    def etcd(self) -> Daemon:
        """The etcd process; only holders of a certificate of ours may talk to it."""
        self.authority.create()
        certificate, key = self.authority.issue("etcd", "etcd", addresses=["127.0.0.1"])
        client, peer = (f"https://127.0.0.1:{p}" for p in (self.etcd_port, self.etcd_peer_port))
        flags = {
            "name": "default",
            "data-dir": self.directory / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "client-cert-auth": "true",
            "peer-client-cert-auth": "true",
            "cert-file": certificate,
            "key-file": key,
            "trusted-ca-file": self.authority.certificate,
            "peer-cert-file": certificate,
            "peer-key-file": key,
            "peer-trusted-ca-file": self.authority.certificate,
            "unsafe-no-fsync": "true",  # nothing here outlives the machine
            "log-level": "warn",
        }
        return Daemon("etcd", _command(self.binaries / "etcd", flags), self.directory)

    def kube_apiserver(self) -> Daemon:
        """The API server process."""
        pki = self.directory / "pki"
        front = Authority(pki, "front-proxy-ca")
        self.authority.create()
        front.create()
        names = [self.address, API_SERVICE_IP, "127.0.0.1", "localhost", "kubernetes"]
        names += [
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{DOMAIN}",
        ]
        serving, serving_key = self.authority.issue("apiserver", "kube-apiserver", addresses=names)
        etcd_client, etcd_key = self.authority.issue("apiserver-etcd", "kube-apiserver")
        proxy, proxy_key = front.issue("front-proxy-client", "front-proxy-client")
        private, public = service_account_key(pki)
        policy = self.directory / "audit-policy.yaml"
        write_config(policy, yaml.safe_dump(AUDIT_POLICY))
        flags: dict[str, object] = {
            "bind-address": self.address,
            "secure-port": self.port,
            "advertise-address": NODE_IP,
            "etcd-servers": f"https://127.0.0.1:{self.etcd_port}",
            "etcd-cafile": self.authority.certificate,
            "etcd-certfile": etcd_client,
            "etcd-keyfile": etcd_key,
            "client-ca-file": self.authority.certificate,
            "tls-cert-file": serving,
            "tls-private-key-file": serving_key,
            "service-account-key-file": public,
            "service-account-signing-key-file": private,
            "service-account-issuer": f"https://kubernetes.default.svc.{DOMAIN}",
            "service-cluster-ip-range": SERVICE_CIDR,
            "authorization-mode": "Node,RBAC",
            "requestheader-client-ca-file": front.certificate,
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-username-headers": "X-Remote-User",
            "proxy-client-cert-file": proxy,
            "proxy-client-key-file": proxy_key,
            "audit-policy-file": policy,
            "audit-log-path": self.directory / "logs" / "audit.log",
            "audit-log-maxsize": 100,
            "audit-log-maxbackup": 2,
            "profiling": "false",
        }
        if self.node:
            kubelet, kubelet_key = self.authority.issue(
                "apiserver-kubelet", "kube-apiserver-kubelet-client"
            )
            flags |= {
                "enable-admission-plugins": "NodeRestriction",
                "kubelet-client-certificate": kubelet,
                "kubelet-client-key": kubelet_key,
                "kubelet-certificate-authority": self.authority.certificate,
                "kubelet-preferred-address-types": "InternalIP",
            }
        else:
            flags |= {
                # No controller makes the default service accounts that this plugin asks for.
                "disable-admission-plugins": "ServiceAccount",
                "endpoint-reconciler-type": "none",
            }
        argv = _command(self.binaries / "kube-apiserver", flags)
        return Daemon("kube-apiserver", argv, self.directory, inputs=(policy, serving))

    def kubeconfig(self, name: str, user: str, *groups: str) -> Path:
        """Write the kubeconfig of a user below the cluster's directory."""
        path = self.directory / name
        return kubeconfig(path, self.url, self.authority, user, groups)

    def ready(self) -> bool:
        """Whether /readyz says so."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(f"{self.url}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def controllers(server: ApiServer) -> list[Daemon]:
    """The controller manager and the scheduler."""
    private, _ = service_account_key(server.directory / "pki")
    manager = server.kubeconfig("controller-manager.kubeconfig", "system:kube-controller-manager")
    scheduler = server.kubeconfig("scheduler.kubeconfig", "system:kube-scheduler")
    manager_flags = {
        "kubeconfig": manager,
        "authentication-kubeconfig": manager,
        "authorization-kubeconfig": manager,
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
        "use-service-account-credentials": "true",
        "service-account-private-key-file": private,
        "root-ca-file": server.authority.certificate,
        "cluster-cidr": POD_CIDR,
        "service-cluster-ip-range": SERVICE_CIDR,
        "allocate-node-cidrs": "false",
        "flex-volume-plugin-dir": server.directory / "volume-plugins",
        "profiling": "false",
    }
    scheduler_flags = {
        "kubeconfig": scheduler,
        "authentication-kubeconfig": scheduler,
        "authorization-kubeconfig": scheduler,
        "bind-address": "127.0.0.1",
        "leader-elect": "false",
        "profiling": "false",
    }
    binaries, directory = server.binaries, server.directory
    return [
        Daemon(
            "kube-controller-manager",
            _command(binaries / "kube-controller-manager", manager_flags),
            directory,
            inputs=(manager,),
        ),
        Daemon(
            "kube-scheduler",
            _command(binaries / "kube-scheduler", scheduler_flags),
            directory,
            inputs=(scheduler,),
        ),
    ]


def _command(program: Path, flags: dict[str, object]) -> list[str]:
    return [str(program), *(f"--{name}={value}" for name, value in flags.items())]
