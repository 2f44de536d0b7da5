"""Safetensors of any dtype, written by the format's rules, and snapshots of them."""

import json
import math
import struct
from pathlib import Path

import numpy as np
from blake3 import blake3
from crc32c import crc32c

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.gpu.dtypes import DTYPES
from glowplug_snapshotter.tensors import HeaderReader

Spec = tuple[str, str, tuple[int, ...]]  # name, dtype, shape


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    bits = DTYPES[dtype].bits * math.prod(shape)
    assert bits % 8 == 0
    return bits // 8


def write_safetensors(path: Path, specs: list[Spec], *, seed: int = 0) -> dict[str, bytes]:
    """Write random bytes as tensors, in this order, packed; return each one's bytes."""
    random = np.random.default_rng(seed)
    header, data, at = {}, {}, 0
    for name, dtype, shape in specs:
        size = size_of(dtype, shape)
        data[name] = random.bytes(size)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(data.values()))
    return data


def write_snapshot(
    folder: Path, store: Path, *, chunk_size: int = manifests.CHUNK_SIZE, tensors: bool = True
) -> str:
    """Lay a snapshot of `folder` out below `store`; return its manifest's URL."""
    files = []
    (store / "blobs").mkdir(parents=True)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        digest = blake3(data).hexdigest()
        (store / "blobs" / digest).write_bytes(data)
        crcs = tuple(crc32c(data[at : at + chunk_size]) for at in range(0, len(data), chunk_size))
        found = ()
        if tensors and path.suffix == ".safetensors":
            header = HeaderReader(len(data))
            header.feed(data)
            found = header.tensors()
        name = path.relative_to(folder).as_posix()
        files.append(manifests.File(name, len(data), digest, crcs, found))
    body = manifests.Manifest("file:///model", None, tuple(files), chunk_size)
    data = manifests.encode(body)
    digest = manifests.digest_of(data).removeprefix("blake3:")
    (store / "manifests" / digest).mkdir(parents=True)
    (store / "manifests" / digest / "manifest.json").write_bytes(data)
    return f"file://{store}/manifests/{digest}/manifest.json"
