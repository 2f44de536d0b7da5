"""Argo CD on a cluster, as host processes: what it thinks of an Application, asked of itself.

Its CRDs and settings come from Argo CD's own module, so they are those of the version that runs.
"""

import hashlib
import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from cluster.apiserver import free_ports
from cluster.build import ENV, is_current, one_build
from cluster.commands import console, run
from cluster.config import HERE, ClusterError, Paths
from cluster.lifecycle import kubectl
from cluster.processes import Daemon, stop

NAMESPACE = "argocd"
MODULE = HERE / "argocd"
HEALTH = HERE.parent.parent / "deploy" / "argocd" / "health"
CONTROLLER, REPO_SERVER, REDIS = PARTS = (
    "argocd-application-controller",
    "argocd-repo-server",
    "argocd-redis",
)
MANIFESTS = ("crds", "base/config")
PROJECT = {  # what Argo CD's API server, which is not needed here, makes at its first start
    "apiVersion": "argoproj.io/v1alpha1",
    "kind": "AppProject",
    "metadata": {"name": "default", "namespace": NAMESPACE},
    "spec": {
        "sourceRepos": ["*"],
        "destinations": [{"namespace": "*", "server": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    },
}


def ensure_argocd(paths: Paths) -> Path:
    """Return the directory of Argo CD's programs, building them first if their pins changed."""
    digest = hashlib.sha256(repr(ENV).encode())
    for path in sorted(MODULE.iterdir()):
        digest.update(path.read_bytes())
    directory, recipe = paths.cache / "bin" / "argocd", digest.hexdigest()
    with one_build(paths):
        if not is_current(directory, recipe):
            _build(directory)
            (directory / "recipe").write_text(recipe)
    return directory


def _build(directory: Path) -> None:
    """Its program under the name of each part, and the manifests of its version."""
    console.print("building Argo CD: once, about 4 min")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    program = directory / "argocd"
    build = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(program), "."]
    run(build, env=ENV, cwd=MODULE, timeout=None)
    for part in PARTS:
        (directory / part).symlink_to(program.name)
    module = ["list", "-m", "-f", "{{.Dir}}", "github.com/argoproj/argo-cd/v3"]
    source = Path(run(["go", *module], env=ENV, cwd=MODULE).strip()) / "manifests"
    for folder in MANIFESTS:
        shutil.copytree(source / folder, directory / "manifests" / folder)


@contextmanager
def argocd(paths: Paths) -> Iterator[None]:
    """Argo CD in its namespace, with Glowplug's health scripts, until the end of the block."""
    binaries = ensure_argocd(paths)
    with ExitStack() as cleanup:
        cleanup.callback(_uninstall, paths, binaries / "manifests")
        _install(paths, binaries / "manifests")
        for daemon, port in _daemons(paths, binaries):
            cleanup.callback(stop, daemon.pidfile)
            daemon.start()
            daemon.wait(partial(_listens, port), 60)
        yield


def _install(paths: Paths, manifests: Path) -> None:
    """CRDs, settings, the default project, and the health of our kinds as the docs say."""
    server_side = ("apply", "--server-side", "--force-conflicts")
    crds, settings = (str(manifests / folder) for folder in MANIFESTS)
    kubectl(paths, *server_side, "-k", crds)
    _wait_until_served(paths)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    kubectl(paths, *server_side, "-f", "-", stdin=json.dumps(namespace))
    kubectl(paths, *server_side, "-n", NAMESPACE, "-k", settings)
    kubectl(paths, *server_side, "-f", "-", stdin=json.dumps(PROJECT))
    kubectl(paths, *server_side, "--field-manager=glowplug", "-k", str(HEALTH))


def _wait_until_served(paths: Paths, seconds: float = 60) -> None:
    """`kubectl wait` ends in an error on a kind so new that it has no condition yet."""
    kinds = {"applications.argoproj.io", "appprojects.argoproj.io"}
    listing = ("api-resources", "--cached=false", "--api-group=argoproj.io", "-o", "name")
    deadline = time.monotonic() + seconds
    while not kinds <= set(kubectl(paths, *listing).split()):
        if time.monotonic() > deadline:
            raise ClusterError("The API server does not serve Argo CD's kinds: see its log.")
        time.sleep(0.5)


def _uninstall(paths: Paths, manifests: Path) -> None:
    """Nothing of it stays, also when a test has left an Application that wants its objects gone."""
    applications = kubectl(paths, "-n", NAMESPACE, "get", "applications", "-o", "name").split()
    for name in applications:
        words = ("patch", name, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
        kubectl(paths, "-n", NAMESPACE, *words)
    kubectl(paths, "delete", "namespace", NAMESPACE, "--ignore-not-found")
    kubectl(paths, "delete", "--ignore-not-found", "-k", str(manifests / "crds"))


def _daemons(paths: Paths, binaries: Path) -> Iterator[tuple[Daemon, int]]:
    """The three processes, each with the port that it listens on, all on loopback."""
    home = paths.root / "argocd"
    home.mkdir(parents=True, exist_ok=True)
    redis, repo, repo_metrics, metrics = free_ports(4)
    yield Daemon(REDIS, [str(binaries / REDIS), f"127.0.0.1:{redis}"], paths.root), redis

    env = {
        "PATH": f"{paths.bin}:/usr/local/bin:/usr/bin:/bin",  # helm and git
        "KUBECONFIG": str(paths.kubeconfig),
        "TMPDIR": str(home),
        "HOME": str(home),
        "ARGOCD_FAKE_IN_CLUSTER": "true",  # kubernetes.default.svc is the kubeconfig's cluster
        "ARGOCD_ASK_PASS_SOCK": str(home / "ask-pass.sock"),
        "ARGOCD_TLS_DATA_PATH": str(home / "tls"),
        "ARGOCD_SSH_DATA_PATH": str(home / "ssh"),
        "ARGOCD_GPG_ENABLED": "false",
    }
    common = [f"--redis=127.0.0.1:{redis}", "--logformat=text"]
    argv = [
        str(binaries / REPO_SERVER),
        *common,
        "--address=127.0.0.1",
        f"--port={repo}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={repo_metrics}",
        "--disable-tls",
    ]
    yield Daemon(REPO_SERVER, argv, paths.root, env=env), repo

    argv = [
        str(binaries / CONTROLLER),
        *common,
        f"--kubeconfig={paths.kubeconfig}",
        f"--namespace={NAMESPACE}",
        f"--repo-server=127.0.0.1:{repo}",
        "--repo-server-plaintext",
        f"--metrics-port={metrics}",
        "--app-resync=15",  # seconds; by default it looks after minutes for what no event told it
        "--app-resync-jitter=0",
        "--persist-resource-health",  # so that a resource's message can be read with kubectl
    ]
    yield Daemon(CONTROLLER, argv, paths.root, env=env), metrics


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
