"""How two snapshots differ, and that what they share is stored once."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from .conftest import S3
from .tools import snapshotter, write_store


def shard(folder: Path, name: str, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, folder / name, metadata={"format": "pt"})


def layer(seed: int, rows: int = 600) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 1024), dtype=np.float32)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text('{"tuned": false}')
    (folder / "old.txt").write_text("old")
    shard(folder, "1.safetensors", {"embed": layer(1), "norm": layer(2, 1)})
    # 23 MB in two chunks: l.0 lies in the first, l.2 in the second, l.1 in both
    shard(folder, "2.safetensors", {"l.0": layer(3, 1000), "l.1": layer(4, 4000), "l.2": layer(5)})
    return folder


@pytest.fixture
def tuned(base: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "tuned"
    shutil.copytree(base, folder)
    (folder / "config.json").write_text('{"tuned": true}')
    (folder / "old.txt").unlink()
    (folder / "new.txt").write_text("new")
    shard(folder, "2.safetensors", {"l.0": layer(3, 1000), "l.1": layer(4, 4000), "l.2": layer(9)})
    shard(folder, "3.safetensors", {"lora": layer(7, 8)})
    return folder


def test_files_tensors_and_bytes_are_told_apart(base: Path, tuned: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    a, b = write_store(base, store), write_store(tuned, store)
    run = snapshotter("diff", a, b, "--from", f"file://{store}")
    assert run.status == 0, run.last
    assert run.last["files"] == {
        "added": ["3.safetensors", "new.txt"],
        "removed": ["old.txt"],
        "changed": ["2.safetensors", "config.json"],
        "same": 1,
    }
    url = f"file://{store}/manifests/{a.removeprefix('blake3:')}/manifest.json"
    same = snapshotter("diff", url, a, "--from", f"file://{store}").last
    assert same["files"]["same"] == 4
    assert same["bytes"]["added"] == 0
    assert same["bytes"]["shared"] == same["bytes"]["a"] == same["bytes"]["b"]


def test_a_digest_without_its_store_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    digest = "blake3:" + "0" * 64
    assert "--from" in snapshotter("diff", digest, digest).last["message"]
    missing = snapshotter("diff", digest, digest, "--from", f"file://{tmp_path}").last
    assert missing["reason"] == "NotFound"
    assert digest.removeprefix("blake3:") in missing["message"]


def test_a_fine_tune_costs_only_its_difference(
    s3: S3, base: Path, tuned: Path, prefix: str
) -> None:
    store = f"s3://store/{prefix}"
    to = ("--to", store, "--endpoint", s3.endpoint)
    first = snapshotter("take", "--source", f"file://{base}", *to).last
    second = snapshotter("take", "--source", f"file://{tuned}", *to).last
    own = ["config.json", "new.txt", "2.safetensors", "3.safetensors"]
    assert second["uploaded"] == sum((tuned / name).stat().st_size for name in own)
    listing = s3.client.list_objects_v2(Bucket="store", Prefix=f"{prefix}/blobs/")
    assert sum(o["Size"] for o in listing["Contents"]) == first["bytes"] + second["uploaded"]
    found = snapshotter(
        "diff", first["digest"], second["digest"], "--from", store, "--endpoint", s3.endpoint
    ).last
    assert found["bytes"]["added"] == second["uploaded"]
    assert found["bytes"]["shared"] == (base / "1.safetensors").stat().st_size
    assert found["tensors"] == {
        "added": ["lora"],
        "removed": [],
        "changed": [],
        "rewritten": ["l.1", "l.2"],  # l.1 shares a chunk with l.2
        "same": 3,
    }
