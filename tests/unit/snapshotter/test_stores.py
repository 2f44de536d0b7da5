"""The less used ways through a real S3: TLS's back end, profiles, cancelling."""

import threading
import time
from pathlib import Path

import pytest

from glowplug_snapshotter.backends import buckets
from glowplug_snapshotter.backends.objects import ObjectReader, SignedReader
from glowplug_snapshotter.backends.s3 import S3HttpReader
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.sources import open_source

from .conftest import S3
from .tools import OWNER, READER, contents, finish, snapshotter, start
from .web import Web


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
