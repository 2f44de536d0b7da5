"""A take that was killed goes on: what has arrived is not sent again, and is proved anyway."""

import base64
import hashlib
import signal
from pathlib import Path

import pytest

from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.checksum import blake3
from glowplug_snapshotter.errors import SnapshotError, TransientError
from glowplug_snapshotter.manifest import CHUNK_SIZE, File
from glowplug_snapshotter.multipart import MOST_PARTS, UploadGoneError, part_size
from glowplug_snapshotter.store import Store, open_store

from .conftest import S3
from .tools import OWNER, Run, contents, finish, snapshotter, start, wait_for, write_model
from .web import Fault, Web

PIECES = [bytes([n]) * CHUNK_SIZE for n in range(1, 4)] + [b"end"]
SIZE = sum(map(len, PIECES))
ENTRY = Entry("model.bin", SIZE, "etag")


def whole(pieces: list[bytes] = PIECES) -> File:
    return File(ENTRY.path, SIZE, blake3(b"".join(pieces)).hexdigest(), (0,) * len(pieces))


def cut_after(count: int, error: Exception, pieces: list[bytes] = PIECES):
    yield from pieces[:count]
    raise error


@pytest.fixture
def store(s3: S3, prefix: str) -> Store:
    return open_store(f"s3://store/{prefix}", s3.endpoint, OWNER)


def uploads(s3: S3, prefix: str) -> list[dict]:
    # SeaweedFS lists an upload for a moment after it ended
    found = s3.client.list_multipart_uploads(Bucket="store", Prefix=prefix).get("Uploads", [])
    return [upload for upload in found if upload["Key"].startswith(prefix)]


def take(s3: S3, source: str, store: str) -> tuple[object, ...]:
    return ("take", "--source", source, "--to", store, "--endpoint", s3.endpoint)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_take_sends_only_what_had_not_arrived(
    s3: S3, web: Web, prefix: str, tmp_path: Path, how: signal.Signals
) -> None:
    model = write_model(tmp_path / "m", megabytes=70)
    for name in ("config.json", "model.safetensors"):
        (web.root / name).write_bytes((model / name).read_bytes())
    size = (model / "model.safetensors").stat().st_size
    stuck = 4 * CHUNK_SIZE
    web.fault = lambda path, first, number: Fault(pause=1000) if first >= stuck else None
    store = f"s3://store/{prefix}"
    first = start(*take(s3, web.url, store))
    arrived = wait_for(lambda: parts(s3, prefix) >= 4 and parts(s3, prefix), 120)
    first.send_signal(how)
    assert finish(first).status in (-signal.SIGKILL, 143)
    kinds = {key.split("/")[0] for key in s3.keys("store", f"{prefix}/")}
    assert "manifests" not in kinds
    web.fault = lambda path, first, number: None
    second = snapshotter(*take(s3, web.url, store))
    assert second.status == 0, second.last
    assert second.last["uploaded"] == size - arrived * CHUNK_SIZE
    assert not uploads(s3, prefix)
    assert not s3.keys("store", f"{prefix}/uploads/")
    assert not s3.keys("store", f"{prefix}/intents/")
    comes_back(s3, store, second, web.root, tmp_path)


def parts(s3: S3, prefix: str) -> int:
    found = uploads(s3, prefix)
    if not found:
        return 0
    name = {"Key": found[0]["Key"], "UploadId": found[0]["UploadId"]}
    return len(s3.client.list_parts(Bucket="store", **name).get("Parts", []))


def comes_back(s3: S3, store: str, taken: Run, model: Path, tmp_path: Path) -> None:
    fixed = ("--from", store, "--endpoint", s3.endpoint, "--digest", taken.last["digest"])
    run = snapshotter("restore", *fixed, "--kind", "snapshot", "--to", tmp_path / "to")
    assert run.status == 0, run.last
    assert contents(tmp_path / "to") == contents(model)


def test_a_part_that_is_not_what_is_read_now_does_not_count(
    store: Store, s3: S3, prefix: str
) -> None:
    lie = [PIECES[0], b"x" * CHUNK_SIZE, *PIECES[2:]]
    with pytest.raises(TransientError):
        store.send("s3://m", ENTRY, cut_after(3, TransientError("gone"), lie), whole)
    _, sent = store.send("s3://m", ENTRY, PIECES, whole)
    assert sent == CHUNK_SIZE + len(b"end")
    key = f"{prefix}/blobs/{whole().blake3}"
    assert s3.client.get_object(Bucket="store", Key=key)["Body"].read() == b"".join(PIECES)


def test_the_store_refuses_a_part_that_was_damaged_on_its_way(s3: S3, prefix: str) -> None:
    name = {"Bucket": "store", "Key": f"{prefix}/x"}
    upload = s3.client.create_multipart_upload(**name)["UploadId"]
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    with pytest.raises(s3.client.exceptions.ClientError):
        s3.client.upload_part(**name, UploadId=upload, PartNumber=1, Body=b"this", ContentMD5=wrong)


def test_a_run_killed_before_its_object_became_a_blob_costs_nothing_again(
    store: Store, s3: S3, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "_adopt", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.send("s3://m", ENTRY, PIECES, whole)
    assert s3.keys("store", f"{prefix}/uploads/")
    assert not s3.keys("store", f"{prefix}/blobs/")
    later = open_store(f"s3://store/{prefix}", s3.endpoint, OWNER)
    assert later.recall("s3://m", ENTRY) == whole()
    assert later.has_blob(whole().blake3, SIZE)
    assert not s3.keys("store", f"{prefix}/uploads/")


def test_what_one_copy_request_cannot_take_is_copied_in_parts(
    store: Store, s3: S3, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glowplug_snapshotter.multipart.COPY_LIMIT", 30_000_000)
    file, sent = store.send("s3://m", ENTRY, PIECES, whole)
    assert (file, sent) == (whole(), SIZE)
    key = f"{prefix}/blobs/{file.blake3}"
    assert s3.client.get_object(Bucket="store", Key=key)["Body"].read() == b"".join(PIECES)
    assert not s3.keys("store", f"{prefix}/uploads/")


@pytest.mark.parametrize(
    ("entry", "error", "kept"),
    [
        (ENTRY, TransientError("the source is away"), True),
        (ENTRY, KeyboardInterrupt(), True),
        (ENTRY, SnapshotError("SourceChanged", "it was replaced"), False),
        (Entry("model.bin", SIZE), TransientError("and nothing pins it"), False),
    ],
)
def test_only_an_upload_that_can_be_gone_on_with_is_kept(
    store: Store, s3: S3, prefix: str, entry: Entry, error: Exception, kept: bool
) -> None:
    with pytest.raises(type(error)):
        store.send("s3://m", entry, cut_after(2, error), whole)
    assert bool(uploads(s3, prefix)) == kept
    for begun in store.uploads.begun("uploads"):
        store.uploads.abort(begun)
    assert not uploads(s3, prefix)


def test_an_upload_that_another_take_finished_is_noticed(store: Store) -> None:
    def parts():
        yield from PIECES[:3]
        store.send("s3://m", ENTRY, PIECES, whole)
        yield PIECES[3]

    with pytest.raises(UploadGoneError):
        store.send("s3://m", ENTRY, parts(), whole)
    assert store.recall("s3://m", ENTRY) == whole()


def test_credentials_that_may_not_list_uploads_send_the_whole_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TransientError):
        store.send("s3://m", ENTRY, cut_after(2, TransientError("gone")), whole)
    refused = SnapshotError("Forbidden", "ListBucketMultipartUploads is not allowed.")

    def forbidden(folder: str) -> None:
        raise refused

    monkeypatch.setattr(store.uploads, "begun", forbidden)
    assert store.send("s3://m", ENTRY, PIECES, whole) == (whole(), SIZE)


def test_parts_are_whole_chunks_and_never_too_many() -> None:
    for size in (CHUNK_SIZE + 1, 150 * 10**9, 151 * 10**9, 5 * 10**12):
        assert part_size(size) % CHUNK_SIZE == 0
        assert -(-size // part_size(size)) <= MOST_PARTS
    assert part_size(150 * 10**9) == CHUNK_SIZE
