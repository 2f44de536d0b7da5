"""take and restore against a real S3."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from .conftest import S3
from .tools import OWNER, READER, Run, contents, snapshotter, write_model


@pytest.fixture
def taken(s3: S3, model: Path, prefix: str) -> tuple[str, Run]:
    """A snapshot of the model, and the run that took it."""
    store = f"s3://store/{prefix}"
    run = snapshotter(
        "take", "--source", f"file://{model}", "--to", store, "--endpoint", s3.endpoint
    )
    assert run.status == 0, run.last
    return store, run


def take(s3: S3, folder: Path, store: str) -> Run:
    source = f"file://{folder}"
    return snapshotter("take", "--source", source, "--to", store, "--endpoint", s3.endpoint)


def restore(s3: S3, store: str, to: Path, *more: object, env: dict | None = None) -> Run:
    fixed = ("restore", "--from", store, "--endpoint", s3.endpoint, "--to", to)
    return snapshotter(*fixed, *more, env=env)


def test_a_model_comes_back_byte_for_byte(
    s3: S3, taken: tuple[str, Run], model: Path, tmp_path: Path
) -> None:
    store, run = taken
    digest = run.last["digest"]
    to = tmp_path / "to"
    result = restore(s3, store, to, "--kind", "snapshot", "--digest", digest)
    assert result.status == 0, result.last
    assert contents(to) == contents(model)
    assert result.last["digest"] == digest
    assert result.last["verified"] == "snapshot"
    assert result.last["bytes"] == sum(p.stat().st_size for p in model.rglob("*") if p.is_file())
    before = load_file(model / "model.safetensors")
    after = load_file(to / "model.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)
    files = [e["name"] for e in result.events if e["event"] == "file"]
    assert files[-1] == "model.safetensors", "small files come first"
    progress = [e["done"] for e in result.events if e["event"] == "progress"]
    assert progress == sorted(progress)
    assert progress[-1] == result.last["bytes"]


def test_the_manifest_url_alone_names_a_snapshot(
    s3: S3, taken: tuple[str, Run], model: Path, tmp_path: Path
) -> None:
    result = restore(s3, taken[1].last["manifest"], tmp_path / "to", "--kind", "snapshot")
    assert result.status == 0, result.last
    assert contents(tmp_path / "to") == contents(model)


def test_the_store_holds_blobs_a_manifest_and_nothing_temporary(
    s3: S3, taken: tuple[str, Run], prefix: str
) -> None:
    kinds = [key.split("/")[0] for key in s3.keys("store", f"{prefix}/")]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "blobs": 4,
        "manifests": 1,
        "sources": 4,
    }


def test_a_second_take_uploads_nothing(s3: S3, taken: tuple[str, Run], model: Path) -> None:
    store, first = taken
    second = take(s3, model, store)
    assert second.last["digest"] == first.last["digest"]
    assert first.last["uploaded"] == first.last["bytes"]
    assert second.last["uploaded"] == 0


def test_a_fine_tune_adds_only_its_own_blobs(
    s3: S3, taken: tuple[str, Run], model: Path, prefix: str, tmp_path: Path
) -> None:
    store, first = taken
    tuned = write_model(tmp_path / "tuned")
    (tuned / "config.json").write_text('{"tuned": true}')
    before = s3.keys("store", f"{prefix}/blobs/")
    run = snapshotter(
        "take", "--source", f"file://{tuned}", "--to", store, "--endpoint", s3.endpoint
    )
    assert run.status == 0, run.last
    assert run.last["digest"] != first.last["digest"]
    assert len(s3.keys("store", f"{prefix}/blobs/") - before) == 1
    assert not s3.keys("store", f"{prefix}/uploads/")


def test_inspect_and_verify_tell_what_is_there(s3: S3, taken: tuple[str, Run]) -> None:
    store, run = taken
    name = ("--from", store, "--digest", run.last["digest"], "--endpoint", s3.endpoint)
    inspected = snapshotter("inspect", *name).last
    weights = next(f for f in inspected["files"] if f["path"] == "model.safetensors")
    assert len(weights["tensors"]) == 40
    assert weights["tensors"][0] == {
        "name": "layers.0.weight",
        "dtype": "F32",
        "shape": [256, 1024],
    }
    assert snapshotter("verify", *name).last["bytes"] == run.last["bytes"]


@pytest.mark.parametrize("damage", ["flip", "shorten", "delete"])
def test_a_damaged_blob_is_never_served(
    s3: S3, taken: tuple[str, Run], prefix: str, tmp_path: Path, damage: str
) -> None:
    store, run = taken
    blob = next(e["blake3"] for e in run.events if e.get("name") == "model.safetensors")
    key = f"{prefix}/blobs/{blob}"
    data = bytearray(s3.client.get_object(Bucket="store", Key=key)["Body"].read())
    if damage == "delete":
        s3.client.delete_object(Bucket="store", Key=key)
    else:
        data[len(data) // 2] ^= 4
        body = bytes(data if damage == "flip" else data[:-1])
        s3.client.put_object(Bucket="store", Key=key, Body=body)
    name = ("--kind", "snapshot", "--digest", run.last["digest"])
    result = restore(s3, store, tmp_path / "to", *name)
    expected = {"flip": "ChecksumMismatch", "shorten": "SourceChanged", "delete": "NotFound"}
    assert result.status == 1
    assert result.last["reason"] == expected[damage]
    assert f"s3://store/{key}" in result.last["message"]
    assert not (tmp_path / "to" / "model.safetensors").exists()
    assert not (tmp_path / "to" / ".glowplug-partial").exists()


def test_a_changed_manifest_is_refused(
    s3: S3, taken: tuple[str, Run], prefix: str, tmp_path: Path
) -> None:
    store, run = taken
    digest = run.last["digest"]
    key = f"{prefix}/manifests/{digest.removeprefix('blake3:')}/manifest.json"
    data = json.loads(s3.client.get_object(Bucket="store", Key=key)["Body"].read())
    data["files"] = data["files"][1:]
    s3.client.put_object(Bucket="store", Key=key, Body=json.dumps(data).encode())
    result = restore(s3, store, tmp_path / "to", "--kind", "snapshot", "--digest", digest)
    assert result.last["reason"] == "DigestMismatch"
    assert key in result.last["message"]


def test_a_source_is_restored_as_it_lies(s3: S3, model: Path, prefix: str, tmp_path: Path) -> None:
    s3.upload(model, "models", prefix)
    source = f"s3://models/{prefix}"
    result = restore(s3, source, tmp_path / "to", "--kind", "source", env=READER)
    assert result.last["verified"] == "source", result.last
    assert result.last["digest"] is None
    assert contents(tmp_path / "to") == contents(model)


def test_source_and_store_may_have_credentials_of_their_own(
    s3: S3, model: Path, prefix: str
) -> None:
    s3.upload(model, "models", prefix)
    ends = ("--source-endpoint", s3.endpoint, "--endpoint", s3.endpoint)
    both = ("take", "--source", f"s3://models/{prefix}", "--to", f"s3://store/{prefix}", *ends)
    refused = snapshotter(*both, env=READER)
    assert refused.last["reason"] == "Forbidden"
    assert f"s3://store/{prefix}" in refused.last["message"]
    own = {f"GLOWPLUG_STORE_{name}": value for name, value in OWNER.items()}
    allowed = snapshotter(*both, env={**READER, **own})
    assert allowed.status == 0, allowed.last


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "wrong"}, "Forbidden"),
        ({"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "x"}, "Forbidden"),
        ({"AWS_ACCESS_KEY_ID": "owner"}, "Forbidden"),
        ({}, "Forbidden"),
        (OWNER, "NotFound"),
    ],
)
@pytest.mark.parametrize("kind", ["snapshot", "source"])
def test_what_is_missing_or_refused_is_named(
    s3: S3, prefix: str, tmp_path: Path, env: dict, reason: str, kind: str
) -> None:
    named = "AWS_SECRET_ACCESS_KEY" if len(env) == 1 else f"s3://models/{prefix}"
    digest = ("--digest", "blake3:" + "0" * 64) if kind == "snapshot" else ()
    log = tmp_path / "log"
    result = restore(
        s3, f"s3://models/{prefix}", tmp_path / "to", "--kind", kind, *digest,
        "--termination-log", log, env=env,
    )  # fmt: skip
    assert result.status == 1
    assert result.last["reason"] == reason
    assert named in result.last["message"]
    assert json.loads(log.read_text()) == result.last
    assert "wrong" not in str(result.events) + result.stderr, "a secret was printed"
    assert "Signature=" not in str(result.events) + result.stderr


def test_a_missing_bucket_is_named(s3: S3, tmp_path: Path) -> None:
    result = restore(s3, "s3://absent-bucket/x", tmp_path / "to", "--kind", "source")
    assert result.last["reason"] == "NotFound"
    assert "s3://absent-bucket" in result.last["message"]


def test_memory_stays_within_the_ring_whatever_the_size(
    s3: S3, prefix: str, tmp_path: Path
) -> None:
    big = write_model(tmp_path / "big", megabytes=200)
    store = f"s3://store/{prefix}"
    taken = take(s3, big, store)
    assert taken.status == 0, taken.last
    name = ("--kind", "snapshot", "--digest", taken.last["digest"])
    result = restore(s3, store, tmp_path / "to", *name)
    assert contents(tmp_path / "to") == contents(big)
    ring = 4 * 16 * 2**20
    assert result.peak < ring + 64 * 2**20, "the restore holds more than its ring"
    assert taken.peak < 192 * 2**20, "the take is not bounded"
