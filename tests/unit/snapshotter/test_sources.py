"""Where a model may come from, and that a source which changes is noticed."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.sources import open_source

from .conftest import S3
from .tools import OWNER, contents, snapshotter
from .web import Fault, Web, web_server

CHUNK = 16 * 2**20


@pytest.mark.parametrize(
    "url",
    [
        "models/x",
        "ftp://host/x",
        "s3:///x",
        "hf://org",
        "pvc://",
        "http://",
        "s3://user:pw@bucket/x",
    ],
)
def test_an_address_that_is_none_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        open_source(url)
    assert caught.value.reason == "InvalidURL"
    assert "pw" not in caught.value.message


def test_a_web_folder_is_read_by_its_index(web: Web, model: Path, tmp_path: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (web.root / name).write_bytes(data)
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (web.root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (web.root / "config.json").write_text("{}")
    (web.root / "notes.md").write_text("not a model's file")
    run = snapshotter("restore", "--from", web.url, "--kind", "source", "--to", tmp_path / "to")
    assert run.status == 0, run.last
    expected = contents(web.root)
    del expected["notes.md"]
    assert contents(tmp_path / "to") == expected
    ranged = [headers for path, headers in web.requests if "Range" in headers and "00001" in path]
    assert all("If-Match" in headers for headers in ranged[1:]), "every read is pinned"


def test_a_source_replaced_in_the_middle_is_not_mixed(
    web: Web, model: Path, tmp_path: Path
) -> None:
    (web.root / "config.json").write_text("{}")
    (web.root / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    web.fault = lambda path, first, number: Fault(etag='"new"') if first >= CHUNK else None
    run = snapshotter("restore", "--from", web.url, "--kind", "source", "--to", tmp_path / "to")
    assert run.last["reason"] == "SourceChanged"
    assert "model.safetensors" in run.last["message"]
    assert not (tmp_path / "to" / "model.safetensors").exists()


@pytest.mark.parametrize("when", ["during", "after"])
def test_a_source_that_changes_during_take_commits_nothing(
    s3: S3, web: Web, model: Path, prefix: str, when: str
) -> None:
    (web.root / "config.json").write_text("{}")
    (web.root / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    if when == "during":
        web.fault = lambda path, first, number: Fault(etag='"new"') if first >= CHUNK else None
    else:  # the small file is replaced once it was read
        changed = Fault(etag='"new"')
        web.fault = lambda path, first, n: changed if path == "config.json" and n > 2 else None
    to = f"s3://store/{prefix}"
    run = snapshotter("take", "--source", web.url, "--to", to, "--endpoint", s3.endpoint)
    assert run.status == 1
    assert run.last["reason"] == "SourceChanged"
    kinds = {key.split("/")[0] for key in s3.keys("store", f"{prefix}/")}
    assert "manifests" not in kinds
    assert "uploads" not in kinds


def hub(web: Web, model: Path, cdn: Web, *, sha256: str | None = None) -> str:
    """Lay the model out as a mirror of the hub does, the weights behind a redirect."""
    commit = "c" * 40
    weights = model / "model.safetensors"
    digest = sha256 or hashlib.sha256(weights.read_bytes()).hexdigest()
    size = weights.stat().st_size
    siblings = [
        {"rfilename": "config.json", "size": (model / "config.json").stat().st_size},
        {"rfilename": "model.safetensors", "size": size, "lfs": {"sha256": digest, "size": size}},
        {"rfilename": "pytorch_model.bin", "size": 5},
        {"rfilename": ".gitattributes", "size": 5},
    ]
    listing = json.dumps({"sha": commit, "siblings": siblings}).encode()
    web.pages["api/models/org/name/revision/v1"] = listing
    web.pages[f"api/models/org/name/revision/{commit}"] = listing
    resolve = f"org/name/resolve/{commit}"
    web.pages[f"{resolve}/config.json"] = (model / "config.json").read_bytes()
    web.redirects[f"{resolve}/model.safetensors"] = f"{cdn.url}/weights?signature=1"
    cdn.pages["weights"] = weights.read_bytes()
    return commit


def test_a_hub_repository_is_pinned_to_its_commit(
    s3: S3, web: Web, model: Path, prefix: str, tmp_path: Path
) -> None:
    with web_server(tmp_path / "cdn") as cdn:
        commit = hub(web, model, cdn)
        env = {**OWNER, "HF_ENDPOINT": web.url, "HF_TOKEN": "hf_secret"}
        store = f"s3://store/{prefix}"
        taken = snapshotter(
            "take",
            "--source",
            "hf://org/name@v1",
            "--to",
            store,
            "--endpoint",
            s3.endpoint,
            env=env,
        )
        assert taken.status == 0, taken.last
    asked = dict(web.requests)
    assert asked["api/models/org/name/revision/v1"]["Authorization"] == "Bearer hf_secret"
    assert all("Authorization" not in headers for _, headers in cdn.requests), "the token leaked"
    name = ("--from", store, "--digest", taken.last["digest"], "--endpoint", s3.endpoint)
    assert snapshotter("inspect", *name).last["revision"] == commit
    to = tmp_path / "to"
    assert snapshotter("restore", *name, "--kind", "snapshot", "--to", to).status == 0
    whole = contents(model)
    assert contents(to) == {n: whole[n] for n in ("config.json", "model.safetensors")}


@pytest.mark.parametrize("command", ["take", "restore"])
def test_a_hub_file_must_have_the_sha256_that_the_hub_states(
    s3: S3, web: Web, model: Path, prefix: str, tmp_path: Path, command: str
) -> None:
    with web_server(tmp_path / "cdn") as cdn:
        hub(web, model, cdn, sha256="0" * 64)
        env = {**OWNER, "HF_ENDPOINT": web.url}
        source = "hf://org/name@v1"
        if command == "take":
            to = f"s3://store/{prefix}"
            run = snapshotter(
                "take", "--source", source, "--to", to, "--endpoint", s3.endpoint, env=env
            )
        else:
            to = tmp_path / "to"
            run = snapshotter("restore", "--from", source, "--kind", "source", "--to", to, env=env)
    assert run.last["reason"] == "ChecksumMismatch"
    assert "model.safetensors" in run.last["message"]


def test_a_file_rewritten_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    reader = open_source(f"file://{tmp_path}")
    (entry,) = reader.entries()
    (tmp_path / "a").write_bytes(b"after!")
    os.utime(tmp_path / "a", (1, 1))
    with pytest.raises(SnapshotError) as caught:
        reader.read_into(entry, 0, memoryview(bytearray(6)))
    assert caught.value.reason == "SourceChanged"


def test_weights_that_are_not_safetensors_are_refused_at_take(
    s3: S3, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").write_bytes(b"version git-lfs: a pointer, not weights\n")
    to = f"s3://store/{prefix}"
    run = snapshotter(
        "take", "--source", f"file://{tmp_path}/m", "--to", to, "--endpoint", s3.endpoint
    )
    assert run.last["reason"] == "InvalidSource"
    assert "model.safetensors" in run.last["message"]
    assert not s3.keys("store", prefix)
