"""Make the Python base image from Debian packages, and the pause image, where no registry is."""

import hashlib
import inspect
import shutil
from pathlib import Path

from cluster.commands import console, follow, run
from cluster.config import HERE, PAUSE_IMAGE, ClusterError, Paths

PYTHON_IMAGE = "docker.io/library/python:3.11-slim-bookworm"
PACKAGES = ("ca-certificates", "netbase", "python3", "python3-pip", "tzdata")
RELEASE = "bookworm"
LABEL = "dev.glowplug.recipe"


def buildah(paths: Paths, *words: str | Path) -> list[str | Path]:
    """A buildah command line on our own storage, apart from the machine's."""
    store = paths.cache / "buildah"
    return ["buildah", "--root", store, "--runroot", "/run/glowplug-buildah", *words]


def ensure_python(paths: Paths) -> None:
    """Build the base image unless our storage holds one of the same recipe."""
    recipe = _recipe(repr((PACKAGES, RELEASE)), inspect.getsource(_slim))
    if label(paths, PYTHON_IMAGE) == recipe:
        return
    console.print(f"making {PYTHON_IMAGE} from Debian packages: {', '.join(PACKAGES)}")
    name = run(buildah(paths, "from", "scratch")).strip()
    try:
        tree = Path(run(buildah(paths, "mount", name)).strip())
        include = f"--include={','.join(PACKAGES)}"
        follow(
            ["debootstrap", "--variant=minbase", include, RELEASE, tree, _mirror()],
            "base image: packages",
            counts=lambda line: line.startswith("I: "),
            log=paths.cache / "debootstrap.log",
        )
        _slim(tree)
        config = ["--cmd", "python3", "--env", "PATH=/usr/local/bin:/usr/bin:/bin"]
        config += ["--env", "LANG=C.UTF-8", "--label", f"{LABEL}={recipe}"]
        run(buildah(paths, "config", *config, name))
        run(buildah(paths, "commit", "--quiet", name, PYTHON_IMAGE))
    finally:
        run(buildah(paths, "rm", name))


def ensure_pause(paths: Paths) -> None:
    """Put our own pause program into an image of the name that containerd is configured with."""
    recipe = _recipe((HERE / "binaries/pause/main.go").read_text())
    if label(paths, PAUSE_IMAGE) == recipe:
        return
    name = run(buildah(paths, "from", "scratch")).strip()
    try:
        run(buildah(paths, "copy", name, paths.bin / "pause", "/pause"))
        config = ["--entrypoint", '["/pause"]', "--user", "65535:65535"]
        run(buildah(paths, "config", *config, "--label", f"{LABEL}={recipe}", name))
        run(buildah(paths, "commit", "--quiet", name, PAUSE_IMAGE))
    finally:
        run(buildah(paths, "rm", name))


def label(paths: Paths, image: str) -> str | None:
    """The recipe that an image of our storage was built from; None without the image."""
    form = f'{{{{index .OCIv1.Config.Labels "{LABEL}"}}}}'
    try:
        return run(buildah(paths, "inspect", "--type", "image", "--format", form, image)).strip()
    except ClusterError:
        return None


def _recipe(*parts: str) -> str:
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


def _mirror() -> str:
    """The Debian mirror that this machine's apt already uses."""
    for line in run(["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)"]).split("\n"):
        codename, _, address = line.partition(" ")
        if codename == RELEASE:
            return address
    raise ClusterError(f"apt has no source for Debian {RELEASE}: run `apt-get update`.")


def _slim(tree: Path) -> None:
    """Drop what an image does not need, and let pip install as in the official image."""
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists"):
        shutil.rmtree(tree / folder, ignore_errors=True)
    for archive in (tree / "var/cache/apt").rglob("*"):
        if archive.is_file():
            archive.unlink()
    (tree / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink(missing_ok=True)
    for name, target in (("python", "python3"), ("python3", "python3"), ("pip", "pip3")):
        (tree / "usr/local/bin" / name).symlink_to(f"/usr/bin/{target}")
