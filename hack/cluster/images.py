"""Build the project's images from their Dockerfiles and load them into the cluster."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.base_image import LABEL, PYTHON_IMAGE, buildah, ensure_python, label
from cluster.commands import console, follow, run
from cluster.config import REPOSITORY, ClusterError, Paths
from cluster.node import ctr

IMAGE_CA = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class Image:
    """An image of this repository; the build context is the repository's root."""

    tag: str
    dockerfile: str


IMAGES = {
    "operator": Image("docker.io/glowplug/operator:dev", "operator/Dockerfile"),
    "snapshotter": Image("docker.io/glowplug/snapshotter:dev", "snapshotter/Dockerfile"),
    "smollm2-engine": Image("docker.io/glowplug/smollm2-engine:dev", "examples/smollm2/Dockerfile"),
}


def ensure(paths: Paths, names: Sequence[str]) -> list[str]:
    """Build what changed of the named images; returns their tags."""
    unknown = [name for name in names if name not in IMAGES]
    if unknown:
        known = ", ".join(IMAGES)
        raise ClusterError(f"there is no image called {', '.join(unknown)}; there are: {known}.")
    ensure_python(paths)
    for name in names:
        _build(paths, name, IMAGES[name])
    return [IMAGES[name].tag for name in names]


def load(paths: Paths, tags: Sequence[str]) -> None:
    """Import images into our containerd, but for those it holds already.

    Each gets a second tag, the start of its id: a release that names it rolls with the image.
    """
    held = _held(paths)
    for tag in tags:
        wanted = image_id(paths, tag)
        if held.get(tag) == wanted:
            continue
        console.print(f"loading {tag}")
        push = buildah(paths, "push", "--disable-compression", "--quiet", tag)
        archive = paths.root / f"image-{wanted[:12]}.tar"
        try:
            run([*push, f"oci-archive:{archive}:{tag}"])
            run(ctr(paths, "images", "import", archive))
            run(
                ctr(
                    paths,
                    "images",
                    "tag",
                    "--force",
                    tag,
                    f"{tag.rpartition(':')[0]}:{wanted[:12]}",
                )
            )
            run(ctr(paths, "images", "label", tag, f"{LABEL}.id={wanted}"))
        finally:
            archive.unlink(missing_ok=True)


def _build(paths: Paths, name: str, image: Image) -> None:
    dockerfile = REPOSITORY / image.dockerfile
    if not dockerfile.exists():
        raise ClusterError(f"image {name}: {image.dockerfile} does not exist.")
    wanted = recipe(dockerfile, image_id(paths, PYTHON_IMAGE))
    if label(paths, image.tag) == wanted:
        return
    words = ["build", "--isolation", "chroot", "--layers", "--pull=false", "--format", "oci"]
    words += ["--label", f"{LABEL}={wanted}", "--tag", image.tag, "--file", str(dockerfile)]
    follow(
        buildah(paths, *words, *_mounts(paths), REPOSITORY),
        f"image {name}: steps",
        total=_steps(dockerfile),
        counts=lambda line: line.startswith("STEP "),
        log=paths.cache / f"image-{name}.log",
    )
    run(buildah(paths, "rmi", "--prune"))  # what this build replaced; cached layers stay


def _mounts(paths: Paths) -> list[str]:
    """Give RUN steps a shared pip cache, and this machine's way to its package index."""
    cache = paths.cache / "pip"
    cache.mkdir(parents=True, exist_ok=True)
    mounts = ["--volume", f"{cache}:/root/.cache/pip"]
    settings = {
        key.removeprefix("PIP_").lower().replace("_", "-"): value
        for key, value in os.environ.items()
        if key in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
        or key in ("PIP_DEFAULT_TIMEOUT", "PIP_RETRIES")
    }
    authorities = os.environ.get("PIP_CERT")
    if authorities:
        settings["cert"] = str(IMAGE_CA)
        mounts += ["--volume", f"{authorities}:{IMAGE_CA}:ro"]
    config = paths.cache / "pip.conf"
    lines = [f"{key} = {value}" for key, value in settings.items()]
    config.write_text("\n".join(["[global]", *lines, ""]))
    return [*mounts, "--volume", f"{config}:/etc/pip.conf:ro"]


def recipe(dockerfile: Path, base: str) -> str:
    """A digest of the Dockerfile, the base image and every file that it copies."""
    digest = hashlib.sha256(base.encode() + dockerfile.read_bytes())
    for path in sorted(_copied(dockerfile)):
        digest.update(str(path.relative_to(REPOSITORY)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _instructions(dockerfile: Path) -> list[str]:
    """The Dockerfile's instructions, continued lines joined."""
    text = dockerfile.read_text().replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _steps(dockerfile: Path) -> int:
    return len(_instructions(dockerfile)) + 1  # our label


def _copied(dockerfile: Path) -> set[Path]:
    """The files of the repository that COPY and ADD name."""
    found: set[Path] = set()
    for line in _instructions(dockerfile):
        keyword, *words = line.split()
        if keyword.upper() not in ("COPY", "ADD") or any(w.startswith("--from") for w in words):
            continue
        for source in [word for word in words if not word.startswith("--")][:-1]:
            for match in REPOSITORY.glob(source.lstrip("/").rstrip("/")):
                files = match.rglob("*") if match.is_dir() else [match]
                found.update(file for file in files if _counts(file))
    return found


def _counts(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"


def image_id(paths: Paths, tag: str) -> str:
    """The id of an image of our storage; it changes with every rebuild."""
    form = "{{.FromImageID}}"
    return run(buildah(paths, "inspect", "--type", "image", "--format", form, tag)).strip()


def _held(paths: Paths) -> dict[str, str]:
    """Tag -> image id of what our containerd holds."""
    held = {}
    for line in run(ctr(paths, "images", "ls")).splitlines()[1:]:
        words = line.split()
        labels = dict(pair.partition("=")[::2] for pair in words[-1].split(","))
        held[words[0]] = labels.get(f"{LABEL}.id", "")
    return held
