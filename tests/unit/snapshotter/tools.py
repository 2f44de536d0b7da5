"""Models to snapshot, and the command itself as a child process."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3
from crc32c import crc32c
from safetensors.numpy import save_file

from glowplug_snapshotter import manifest as manifests

OWNER = {"AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "owner-secret"}
READER = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader-secret"}


def wait_for(condition: Callable[[], object], timeout: float) -> object:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout} s")


def write_model(folder: Path, *, megabytes: int = 40, seed: int = 1) -> Path:
    """Write a model of real safetensors: one file of several chunks, and small files."""
    folder.mkdir(parents=True)
    weights = np.random.default_rng(seed).standard_normal((256, 1024), dtype=np.float32)
    layers = {f"layers.{n}.weight": weights * (n + 1) for n in range(megabytes)}
    save_file(layers, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"hidden_size": 1024}))
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab ä+%.txt").write_text("a\nb\n")
    (folder / "empty.txt").touch()
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Return every file's hash, the restore's own marker left out."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".glowplug-restored.json"
    }


@dataclass
class Run:
    """An ended command: its status, events, standard error and peak memory in bytes."""

    status: int
    events: list[dict]
    stderr: str
    peak: int

    @property
    def last(self) -> dict:
        return self.events[-1]


def environment(**variables: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "HF_", "GLOWPLUG"))}
    return {**kept, **variables}


def start(*arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "glowplug_snapshotter", *map(str, arguments)],
        env=environment(**(OWNER if env is None else env)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen) -> Run:
    errors: list[bytes] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read()))
    reader.start()
    events, peak = [], 0
    for line in process.stdout:
        events.append(json.loads(line))
        peak = max(peak, peak_memory(process.pid))
    process.wait()
    reader.join()
    process.stdout.close()
    process.stderr.close()
    return Run(process.returncode, events, errors[0].decode(), peak)


def peak_memory(pid: int) -> int:
    """Return the most memory a process has held, in bytes; 0 once it is gone.

    Its own count (VmHWM): wait4's starts with what the parent held at the fork.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def snapshotter(*arguments: object, env: dict[str, str] | None = None) -> Run:
    """Run the command to its end."""
    return finish(start(*arguments, env=env))


def write_store(folder: Path, store: Path) -> str:
    """Lay a snapshot of `folder` out below `store`, by the format's rules; return the digest."""
    files = []
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        digest = blake3(data).hexdigest()
        (store / "blobs" / digest).write_bytes(data)
        size = manifests.CHUNK_SIZE
        crcs = tuple(crc32c(data[at : at + size]) for at in range(0, len(data), size))
        name = path.relative_to(folder).as_posix()
        files.append(manifests.File(name, len(data), digest, crcs))
    data = manifests.encode(manifests.Manifest("file:///model", None, tuple(files)))
    digest = manifests.digest_of(data)
    place = store / "manifests" / digest.removeprefix("blake3:")
    place.mkdir(parents=True)
    (place / "manifest.json").write_bytes(data)
    return digest
