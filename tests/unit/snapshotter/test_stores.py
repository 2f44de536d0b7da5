"""The less used ways through a real S3: TLS's back end, profiles, large copies, cancelling."""

import threading
import time
from pathlib import Path

import pytest

from glowplug_snapshotter.backends import buckets
from glowplug_snapshotter.backends.objects import ObjectReader, SignedReader
from glowplug_snapshotter.backends.s3 import S3HttpReader
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.manifest import CHUNK_SIZE
from glowplug_snapshotter.sources import open_source
from glowplug_snapshotter.store import Store

from .conftest import S3
from .tools import OWNER, READER, contents, finish, snapshotter, start, wait_for
from .web import Fault, Web


@pytest.fixture
def objects(s3: S3, model: Path, prefix: str) -> ObjectReader:
    """The model read as over TLS: by obstore alone."""
    s3.upload(model, "models", prefix)
    store = buckets.open_s3("models", s3.endpoint, OWNER)
    return ObjectReader(store, "s3", "models", prefix)


def test_plain_http_needs_no_library_and_tls_has_one(
    s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_source("s3://models/x", s3.endpoint), S3HttpReader)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")
    assert isinstance(open_source("s3://models/x", s3.endpoint), SignedReader)
    for name, value in OWNER.items():
        monkeypatch.setenv(name, value)
    assert isinstance(open_source("s3://models/x", s3.endpoint), S3HttpReader)
    assert isinstance(open_source("s3://models/x", "https://127.0.0.1:1"), ObjectReader)
    assert isinstance(open_source("s3://models/x"), ObjectReader)


def test_obstore_alone_reads_the_same_bytes(objects: ObjectReader, model: Path) -> None:
    for entry in objects.entries():
        buffer = bytearray(entry.size)
        if entry.size:
            objects.read_into(entry, 0, memoryview(buffer))
        assert buffer == (model / entry.path).read_bytes()
    entry = next(e for e in objects.entries() if e.path == "model.safetensors")
    middle = memoryview(bytearray(1_000_003))
    objects.read_into(entry, 7_777_777, middle)
    assert middle == (model / entry.path).read_bytes()[7_777_777 : 7_777_777 + 1_000_003]
    assert objects.fetch("config.json", 100) == (model / "config.json").read_bytes()


def test_obstore_alone_notices_a_replaced_object(
    objects: ObjectReader, s3: S3, prefix: str
) -> None:
    entry = next(e for e in objects.entries() if e.path == "config.json")
    s3.client.put_object(Bucket="models", Key=f"{prefix}/config.json", Body=b"x" * entry.size)
    with pytest.raises(SnapshotError) as caught:
        objects.read_into(entry, 0, memoryview(bytearray(entry.size)))
    assert caught.value.reason == "SourceChanged"
    assert f"s3://models/{prefix}/config.json" in caught.value.message
    with pytest.raises(SnapshotError) as caught:
        objects.fetch("absent.json", 100)
    assert caught.value.reason == "NotFound"
    with pytest.raises(SnapshotError) as caught:
        objects.fetch("model.safetensors", 100)
    assert caught.value.reason == "Unsupported"


def test_credentials_may_lie_in_a_profile(s3: S3, model: Path, prefix: str, tmp_path: Path) -> None:
    s3.upload(model, "models", prefix)
    lines = [f"{name.lower()} = {value}" for name, value in READER.items()]
    (tmp_path / "credentials").write_text("\n".join(["[cluster]", *lines, ""]))
    env = {
        "AWS_PROFILE": "cluster",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    run = snapshotter(
        "restore", "--from", f"s3://models/{prefix}", "--endpoint", s3.endpoint,
        "--kind", "source", "--to", tmp_path / "to", env=env,
    )  # fmt: skip
    assert run.status == 0, run.last
    assert contents(tmp_path / "to") == contents(model)


def test_what_one_copy_request_cannot_take_is_copied_in_parts(
    s3: S3, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glowplug_snapshotter.store.COPY_LIMIT", 1_000_000)
    store = Store(f"s3://store/{prefix}", s3.endpoint, OWNER)
    pieces = [bytes([n]) * 16 * 2**20 for n in range(3)]
    upload = store.upload(48 * 2**20, pieces)
    assert not store.has_blob("a" * 64, 48 * 2**20)
    store.adopt(upload, "a" * 64, 48 * 2**20)
    assert s3.keys("store", f"{prefix}/") == {f"blobs/{'a' * 64}"}
    body = s3.client.get_object(Bucket="store", Key=f"{prefix}/blobs/{'a' * 64}")["Body"].read()
    assert body == b"".join(pieces)


def test_a_take_is_cancelled_also_while_it_asks_what_it_knows(web: Web, model: Path) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hold(path: str, first: int, number: int) -> None:
        asked.set()
        answer.wait()

    web.fault = hold
    process = start(
        "take", "--source", f"file://{model}", "--to", "s3://store/x", "--endpoint", web.url
    )
    assert asked.wait(60)
    process.terminate()
    time.sleep(0.5)  # the signal is there before the answer
    answer.set()
    run = finish(process)
    assert (run.status, run.last["reason"]) == (143, "Cancelled")


def test_a_cancelled_take_leaves_no_object_that_counts(
    s3: S3, web: Web, model: Path, prefix: str
) -> None:
    for name in ("config.json", "model.safetensors"):
        (web.root / name).write_bytes((model / name).read_bytes())
    web.fault = lambda path, first, number: Fault(pause=1000) if first >= 2 * CHUNK_SIZE else None
    process = start(
        "take", "--source", web.url, "--to", f"s3://store/{prefix}", "--endpoint", s3.endpoint
    )
    uploads = s3.client.list_multipart_uploads
    wait_for(lambda: prefix in str(uploads(Bucket="store").get("Uploads")), 60)
    process.terminate()
    run = finish(process)
    assert run.status == 143
    assert run.last["reason"] == "Cancelled"
    kinds = {key.split("/")[0] for key in s3.keys("store", f"{prefix}/")}
    assert "manifests" not in kinds
    assert "uploads" not in kinds
    assert prefix not in str(uploads(Bucket="store").get("Uploads"))
