"""How fast do a model's tensors reach the GPU from tmpfs and from the page cache?

Ours from a snapshot (every chunk's crc32c checked) and from a plain directory, safetensors' own
load_file, fastsafetensors without GDS, and Run:ai's streamer at its default and as it is fastest
here; the limit is what the link carries from pinned memory. All tensors are kept on the GPU. Each
sample has a process of its own, whose imports and CUDA context are there before the clock starts.

Needs a CUDA GPU with 12 GB, as much memory, torch, and the peers: safetensors, fastsafetensors,
runai-model-streamer. Without a GPU it says so in a row for each tool.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from blake3 import blake3
from crc32c import crc32c
from report import Report, arguments

import glowplug_snapshotter
from glowplug_snapshotter import SnapshotError, manifest
from glowplug_snapshotter.gpu.cuda import Cuda
from glowplug_snapshotter.plan import blob_key, manifest_key
from glowplug_snapshotter.tensors import HeaderReader

SHARD = 2 << 30  # bytes
TENSORS = (64 << 20, 32 << 20, 32 << 20, 112 << 20, 16 << 10)  # bytes, again and again, of BF16
STORE, FILES = "store", "files"
Tool = Callable[[Path], float]


def write_shard(path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    header: dict[str, object] = {}
    at = 0
    while at + max(TENSORS) <= SHARD:
        for number, size in enumerate(TENSORS):
            place = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [at, at + size]}
            header[f"{path.stem}.{len(header)}.{number}"] = place
            at += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for begin in range(0, at, 16 << 20):
            file.write(random.bytes(min(16 << 20, at - begin)))


def write_model(folder: Path, shards: int) -> int:
    """Write files, and a snapshot of them that links to the same bytes; return their size."""
    (folder / FILES).mkdir()
    (folder / STORE / "blobs").mkdir(parents=True)
    entries = []
    for number in range(shards):
        path = folder / FILES / f"model-{number:05}.safetensors"
        write_shard(path, number)
        whole, crcs, header = blake3(), [], HeaderReader(path.stat().st_size)
        with open(path, "rb") as file:
            while chunk := file.read(manifest.CHUNK_SIZE):
                whole.update(chunk)
                crcs.append(crc32c(chunk))
                header.feed(chunk)
        digest = whole.hexdigest()
        os.link(path, folder / STORE / blob_key(digest))
        size, tensors = path.stat().st_size, header.tensors()
        entries.append(manifest.File(path.name, size, digest, tuple(crcs), tensors))
    data = manifest.encode(manifest.Manifest("file:///", None, tuple(entries)))
    digest = manifest.digest_of(data)
    place = folder / STORE / manifest_key(digest)
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    (folder / "digest").write_text(digest)
    return sum(entry.size for entry in entries)


def files_of(folder: Path) -> list[str]:
    return [str(path) for path in sorted((folder / FILES).iterdir())]


def clocked(load: Callable[[], object]) -> float:
    """Return the seconds until everything is on the GPU."""
    import torch

    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    started = time.perf_counter()
    kept = load()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    del kept
    return seconds


def ours_proved(folder: Path) -> float:
    store, digest = f"file://{folder / STORE}", (folder / "digest").read_text()
    return clocked(lambda: list(glowplug_snapshotter.load(store, "cuda", digest=digest)))


def ours_plain(folder: Path) -> float:
    return clocked(lambda: list(glowplug_snapshotter.load(folder / FILES, "cuda")))


def safetensors(folder: Path) -> float:
    from safetensors.torch import load_file

    return clocked(lambda: [load_file(path, device="cuda") for path in files_of(folder)])


def fastsafetensors(folder: Path) -> float:
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    def load() -> object:
        loader = SafeTensorsFileLoader(SingleGroup(), "cuda:0", nogds=True)
        loader.add_filenames({0: files_of(folder)})
        buffers = loader.copy_files_to_device()
        return loader, buffers, [buffers.get_tensor(key) for key in loader.get_keys()]

    return clocked(load)


def runai(folder: Path) -> float:
    from runai_model_streamer import SafetensorsStreamer

    def load() -> object:
        with SafetensorsStreamer() as streamer:
            streamer.stream_files(files_of(folder))
            return [tensor.to("cuda") for _, tensor in streamer.get_tensors()]

    return clocked(load)


def runai_tuned(folder: Path) -> float:
    os.environ["RUNAI_STREAMER_MEMORY_LIMIT"] = "0"
    os.environ["RUNAI_STREAMER_CONCURRENCY"] = str(len(os.sched_getaffinity(0)))
    os.environ["RUNAI_STREAMER_CHUNK_BYTESIZE"] = str(8 << 20)
    return runai(folder)


def link(folder: Path) -> float:
    """Copy as many bytes as the model has from one pinned buffer to one of the GPU."""
    size = sum(os.path.getsize(path) for path in files_of(folder))
    device, each = Cuda(0), 256 << 20
    slot, memory = device.slot(each), device.allocate(each)
    device.copy(slot, 0, memory, 0, each)
    device.mark().wait()
    started = time.perf_counter()
    for at in range(0, size, each):
        device.copy(slot, 0, memory, 0, min(each, size - at))
    device.mark().wait()
    return time.perf_counter() - started


TOOLS: dict[str, Tool] = {
    "limit": link,
    "glowplug": ours_proved,
    "glowplug-plain": ours_plain,
    "safetensors": safetensors,
    "fastsafetensors-nogds": fastsafetensors,
    "runai-default": runai,
    "runai-tuned": runai_tuned,
}


def sample(report: Report, case: str, name: str, folder: Path, size: int) -> None:
    if any(gap["case"] == case and gap["tool"] == name for gap in report.missing):
        return
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            seconds = process.submit(TOOLS[name], folder).result()
        except Exception as error:  # a peer that cannot run here is a row with its reason
            report.lacks(case, name, f"{type(error).__name__}: {error}")
        else:
            report.add(case, name, "to the GPU", "GB/s", size / seconds / 1e9)


def measure(report: Report, rounds: int, shards: int) -> None:
    for case, parent in (("tmpfs", "/dev/shm"), ("page cache", None)):
        folder = Path(tempfile.mkdtemp(prefix="glowplug-gpu-", dir=parent))
        try:
            size = write_model(folder, shards)
            for _ in range(rounds):
                for name in TOOLS:
                    sample(report, case, name, folder, size)
        finally:
            shutil.rmtree(folder)


def main() -> None:
    options = arguments(__doc__)
    report = Report()
    try:
        Cuda(0)
    except SnapshotError:
        for case in ("tmpfs", "page cache"):
            for name in TOOLS:
                report.lacks(case, name, "no CUDA GPU here")
    else:
        measure(report, rounds=3 if options.quick else 7, shards=1 if options.quick else 4)
    report.show()
    if options.json is not None:
        report.write(options.json)


if __name__ == "__main__":
    main()
