"""Directories like those that engines leave, a store on a disk, and both ways between them."""

import os
from pathlib import Path

import pytest

from glowplug_snapshotter.compiled.capture import capture
from glowplug_snapshotter.compiled.placing import Wanted, place
from glowplug_snapshotter.sources import open_source
from glowplug_snapshotter.store import Store

from .tools import write_store
from .turns import Actor, Memory

KEY = {
    "engineImage": "sha256:" + "e" * 64,
    "gpuArchitecture": "sm_90",
    "driver": "580.65.06",
    "arguments": "blake3:" + "a" * 64,
}
WORDS = [word for name, value in KEY.items() for word in ("--key", f"{name}={value}")]


def write_cache(folder: Path, *, files: int = 300, large: int = 0) -> Path:
    """Write what Inductor, Triton and FlashInfer leave: many small files, some the same."""
    for n in range(files):
        place = folder / "inductor" / f"{n % 16:02x}" / f"graph-{n}"
        place.mkdir(parents=True)
        (place / "code.py").write_text(f"# graph {n % 50}\n" * (n % 50 + 1))
        os.utime(place / "code.py", ns=(10**18 + n, 10**18 + n))
    (folder / "triton").mkdir()
    (folder / "triton" / "launcher.so").write_bytes(b"\x7fELF" + bytes(1000))
    (folder / "triton" / "launcher.so").chmod(0o6755)
    (folder / "triton" / "lock").touch()
    (folder / ".hidden").write_text("also the engine's")
    if large:
        (folder / "big.bin").write_bytes(os.urandom(large))
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> tuple[Path, str]:
    """A store on a disk with one snapshot, and its digest."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    return tmp_path / "store", write_store(tmp_path / "m", tmp_path / "store")


def captured(shelf: tuple[Path, str], folder: Path, key: dict = KEY, tell: list | None = None):
    """Capture into the store on the disk."""
    store, digest = shelf
    memory = Memory()
    for path in store.rglob("*"):
        if path.is_file():
            memory.objects[path.relative_to(store).as_posix()] = (path.read_bytes(), 0.0)
    results: list = []
    told = [] if tell is None else tell

    def work(bucket: Actor) -> None:
        results.append(capture(Store(bucket, lambda: None), digest, folder, key, told.append))

    Actor(memory, work).finish()
    for path, (data, _) in memory.objects.items():
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).write_bytes(data)
    return results[0]


def placed(shelf: tuple[Path, str], to: Path, key: object = KEY) -> dict:
    store, digest = shelf
    return place(lambda: open_source(f"file://{store}"), digest, Wanted(key, to))
