"""Build the cluster's programs from source through the Go module proxy, once for each version."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grpc_tools import protoc

from cluster.commands import console, follow, run
from cluster.config import HERE, KUBERNETES, ClusterError, Paths

MODULE = HERE / "binaries"
PROGRAMS = {  # import path -> name of the program
    "k8s.io/kubernetes/cmd/kube-apiserver": "kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager": "kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-scheduler": "kube-scheduler",
    "k8s.io/kubernetes/cmd/kubelet": "kubelet",
    "k8s.io/kubernetes/cmd/kube-proxy": "kube-proxy",
    "k8s.io/kubernetes/cmd/kubectl": "kubectl",
    "go.etcd.io/etcd/server/v3": "etcd",
    "helm.sh/helm/v4/cmd/helm": "helm",
    "./dns": "dns",
    "./pause": "pause",
}


def _pinned(module: str) -> str:
    """The version that go.mod pins a module to."""
    lines = (MODULE / "go.mod").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.strip().startswith(f"{module} "))


MINOR = KUBERNETES.split(".")[1]
STAMPS = {
    "k8s.io/component-base/version.gitVersion": f"v{KUBERNETES}",
    "k8s.io/component-base/version.gitMajor": "1",
    "k8s.io/component-base/version.gitMinor": MINOR,
    "k8s.io/client-go/pkg/version.gitVersion": f"v{KUBERNETES}",
    "helm.sh/helm/v4/internal/version.version": _pinned("helm.sh/helm/v4"),
}
ENV = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}


def ensure_binaries(paths: Paths) -> Path:
    """Return the directory of the programs, building them first if any input changed."""
    recipe = _recipe()
    if is_current(paths.bin, recipe):
        return paths.bin
    with one_build(paths):
        if not is_current(paths.bin, recipe):
            _build(paths, recipe)
    return paths.bin


KWOK_STAGES = ("node/fast/node-initialize", "pod/fast/pod-ready", "pod/fast/pod-delete")


def ensure_kwok(paths: Paths) -> Path:
    """Return the folder of kwok and of its `stages.yaml`, built when first asked for (2 min)."""
    source = HERE / "kwok"
    pins = b"".join((source / name).read_bytes() for name in ("go.mod", "go.sum"))
    recipe = hashlib.sha256(pins + repr((ENV, KWOK_STAGES)).encode()).hexdigest()
    directory = paths.cache / "bin" / "kwok"
    with one_build(paths):
        if not is_current(directory, recipe):
            console.print("building kwok: once, about 2 min")
            directory.mkdir(parents=True, exist_ok=True)
            build = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", f"{directory}/"]
            run([*build, "sigs.k8s.io/kwok/cmd/kwok"], env=ENV, cwd=source, timeout=None)
            find = ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
            stages = Path(run(find, env=ENV, cwd=source).strip()) / "kustomize" / "stage"
            texts = [(stages / f"{name}.yaml").read_text() for name in KWOK_STAGES]
            (directory / "stages.yaml").write_text("\n---\n".join(texts))
            (directory / "recipe").write_text(recipe)
    return directory


def is_current(directory: Path, recipe: str) -> bool:
    """Whether what was built there was built from the same inputs."""
    stamp = directory / "recipe"
    return stamp.exists() and stamp.read_text() == recipe


def _recipe() -> str:
    digest = hashlib.sha256(repr((PROGRAMS, STAMPS, ENV)).encode())
    for path in sorted(MODULE.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _build(paths: Paths, recipe: str) -> None:
    console.print(f"building Kubernetes {KUBERNETES}, etcd, CoreDNS, helm: once, about 7 min")
    log = paths.cache / "build.log"
    sources = list(PROGRAMS)
    follow(
        ["go", "list", "-deps", *sources],
        "sources",
        counts=lambda line: line.startswith("go: downloading"),
        env=ENV,
        cwd=MODULE,
    )
    listing = ["list", "-deps", "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", *sources]
    stale = len(run(["go", *listing], env=ENV, cwd=MODULE).split())
    fresh = paths.cache / "bin" / f".{KUBERNETES}.{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    flags = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in STAMPS.items())])
    try:
        follow(
            ["go", "build", "-v", "-trimpath", "-ldflags", flags, "-o", f"{fresh}/", *sources],
            "packages",
            total=stale,
            counts=lambda line: not line.startswith("go: "),
            env=ENV,
            cwd=MODULE,
            log=log,
        )
        (fresh / "server").rename(fresh / "etcd")  # go names it after its folder
        _generate_device_plugin(fresh)
        (fresh / "recipe").write_text(recipe)
        shutil.rmtree(paths.bin, ignore_errors=True)
        fresh.rename(paths.bin)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _generate_device_plugin(directory: Path) -> None:
    """Generate the kubelet's device plugin API from the proto in the module cache."""
    module = run(["go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubelet"], env=ENV, cwd=MODULE)
    source = Path(module.strip()) / "pkg/apis/deviceplugin/v1beta1/api.proto"
    target = directory / "device_plugin_api"
    target.mkdir()
    shutil.copyfile(source, target / "deviceplugin.proto")
    words = ["protoc", f"-I{target}", f"--python_out={target}", f"--grpc_python_out={target}"]
    if protoc.main([*words, str(target / "deviceplugin.proto")]):
        raise ClusterError(f"protoc could not generate the device plugin API from {source}.")


@contextmanager
def one_build(paths: Paths) -> Iterator[None]:
    """Wait until no other process builds."""
    paths.cache.mkdir(parents=True, exist_ok=True)
    with (paths.cache / "build.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
