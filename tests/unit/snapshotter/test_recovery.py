"""Kills, full disks, names that do not resolve, credentials that run out, manifests that lie."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter import retry
from glowplug_snapshotter.checksum import blake3, crc32c
from glowplug_snapshotter.destinations.directory import JOURNAL, PARTIAL
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.launcher.weights import file_system
from glowplug_snapshotter.restore import Request, restore
from glowplug_snapshotter.ring import chunks_in_memory
from glowplug_snapshotter.sources import open_source

from .faulty import Fault, Faulty
from .tools import contents, finish, start, wait_for

CHUNK = 64 * 1024
CHUNKS = 40


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.02)


def stored(data: bytes, chunk: int, name: str = "model.safetensors") -> tuple[dict, str]:
    """A store with one file's snapshot: what lies in it, and the digest."""
    digest = blake3(data).hexdigest()
    crcs = tuple(crc32c(data[at : at + chunk]) for at in range(0, len(data), chunk))
    file = manifests.File(name, len(data), digest, crcs)
    body = manifests.encode(manifests.Manifest("file:///m", None, (file,), chunk))
    return {f"blobs/{digest}": data, **manifest_at(body)}, manifests.digest_of(body)


def manifest_at(body: bytes) -> dict[str, bytes]:
    digest = manifests.digest_of(body).removeprefix("blake3:")
    return {f"manifests/{digest}/manifest.json": body}


def random_bytes(size: int) -> bytes:
    return np.random.default_rng(3).bytes(size)


@pytest.mark.parametrize("percent", range(5, 100, 5))
def test_a_killed_restore_is_gone_on_with(tmp_path: Path, percent: int) -> None:
    data = random_bytes(CHUNKS * CHUNK)
    files, digest = stored(data, CHUNK)
    with Faulty(files) as server:
        pid: list[int] = []
        read: list[int] = []
        gate = threading.Event()

        def kill(path: str, first: int, number: int) -> Fault | None:
            if path.startswith("blobs"):
                gate.wait(30)
                read.append(CHUNK)
                if len(read) > CHUNKS * percent // 100:
                    os.kill(pid[0], signal.SIGKILL)
                    return Fault("cut")
            return None

        server.spoil = kill
        process = start(
            "restore", "--from", server.url, "--kind", "snapshot", "--digest", digest,
            "--to", tmp_path,
        )  # fmt: skip
        pid.append(process.pid)
        gate.set()
        assert finish(process).status == -signal.SIGKILL
        server.spoil = lambda path, first, number: None
        server.drop()
        wait_for(lambda: not server.serving(), 60)  # requests of the killed one do not count
        before = len(server.asked)
        result = restore(Request(server.url, "snapshot", digest, None, tmp_path), lambda e: None)
        assert contents(tmp_path) == {"model.safetensors": hash_of(data)}
        again = sum(n for path, _, n in server.asked[before:] if path.startswith("blobs"))
        assert again + result["resumedBytes"] == len(data)
        whole = CHUNKS * percent // 100 * CHUNK
        assert whole + again - len(data) < chunks_in_memory() * CHUNK, "less than a ring twice"


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_a_journal_claims_is_checked_against_the_bytes(tmp_path: Path) -> None:
    data = random_bytes(8 * CHUNK)
    files, digest = stored(data, CHUNK)
    with Faulty(files) as server:
        server.spoil = lambda path, first, number: Fault("500") if first == 7 * CHUNK else None
        request = Request(server.url, "snapshot", digest, None, tmp_path)
        with pytest.raises(SnapshotError, match="500"):
            restore(request, lambda event: None)
        partial = tmp_path / PARTIAL / "model.safetensors"
        with open(partial, "r+b") as file:  # as a crash of the machine may leave it
            file.seek(2 * CHUNK + 5)
            file.write(b"\0" * 100)
        with open(tmp_path / JOURNAL, "ab") as file:
            file.write(b"torn")
        server.spoil = lambda path, first, number: None
        result = restore(request, lambda event: None)
    assert contents(tmp_path) == {"model.safetensors": hash_of(data)}
    assert result["resumedBytes"] == 6 * CHUNK


def test_another_plan_takes_nothing_from_a_journal(tmp_path: Path) -> None:
    first, one = stored(random_bytes(8 * CHUNK), CHUNK, "old.safetensors")
    second, two = stored(random_bytes(8 * CHUNK)[::-1], CHUNK)
    with Faulty({**first, **second}) as server:
        server.spoil = lambda path, first, number: Fault("500") if first == 7 * CHUNK else None
        with pytest.raises(SnapshotError):
            restore(Request(server.url, "snapshot", one, None, tmp_path), lambda event: None)
        server.spoil = lambda path, first, number: None
        result = restore(Request(server.url, "snapshot", two, None, tmp_path), lambda event: None)
    assert result["resumedBytes"] == 0
    assert set(contents(tmp_path)) == {"model.safetensors"}


@pytest.fixture(params=["tmpfs", "ext4"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB."""
    place, image = tmp_path / "small", tmp_path / "image"
    place.mkdir()
    if request.param == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", "size=48m", "glowplug-test", place)
    else:
        with open(image, "wb") as file:
            file.truncate(64 * 2**20)
        run("mkfs.ext4", "-q", image)
        run("mount", "-o", "loop", image, place)
    try:
        assert file_system(str(place)) == request.param
        yield place
    finally:
        run("umount", place)


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


@pytest.mark.parametrize("left", [0, 3 * 2**20])
def test_a_file_system_that_fills_up_is_said_and_left_clean(small: Path, left: int) -> None:
    """`left`: bytes that whoever fills it leaves; some chunk is torn by it."""
    chunk = 4 * 2**20
    data = random_bytes(11 * chunk + 7)
    files, digest = stored(data, chunk)
    to, filler = small / "to", small / "filler"
    with Faulty(files) as server:

        def fill(path: str, first: int, number: int) -> Fault | None:
            if path.startswith("blobs") and not filler.exists():
                with open(filler, "wb", buffering=0) as file:
                    with contextlib.suppress(OSError):
                        while file.write(bytes(2**20)):
                            pass
                    file.truncate(max(0, file.tell() - left))
            return None

        server.spoil = fill
        command = (
            "restore", "--from", server.url, "--kind", "snapshot", "--digest", digest, "--to", to,
        )  # fmt: skip
        process = finish(start(*command))
        assert process.status == 1, process
        assert process.last["reason"] == "NoSpace"
        assert str(to) in process.last["message"]
        assert not [path for path in to.rglob("*") if path.is_file()]
        server.spoil = lambda path, first, number: None
        filler.unlink()
        assert finish(start(*command)).status == 0
    assert contents(to) == {"model.safetensors": hash_of(data)}


def test_a_name_that_does_not_resolve_is_tried_again_and_then_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_bytes(3 * CHUNK)
    files, digest = stored(data, CHUNK)
    real, failures = socket.getaddrinfo, [2]

    def resolve(host: str, *rest: object, **more: object) -> object:
        if host == "store.test" and failures[0]:
            failures[0] -= 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1" if host == "store.test" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with Faulty(files) as server:
        url = server.url.replace("127.0.0.1", "store.test")
        restore(Request(url, "snapshot", digest, None, tmp_path / "a"), lambda event: None)
        assert contents(tmp_path / "a") == {"model.safetensors": hash_of(data)}
        failures[0] = 1000
        with pytest.raises(SnapshotError, match="name resolution") as caught:
            restore(Request(url, "snapshot", digest, None, tmp_path / "b"), lambda event: None)
    assert caught.value.reason == "Unavailable"
    assert "store.test" in caught.value.message


def test_credentials_that_run_out_are_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a profile's process, as an expiring one would: the store refuses the old key midway."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.1)  # for the profile's process to be run again
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 1.0)
    data = random_bytes(20 * CHUNK)
    files, digest = stored(data, CHUNK)
    expired = tmp_path / "expired"
    script = tmp_path / "process.py"
    soon = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
    script.write_text(
        "import json, os\n"
        f"key = 'new' if os.path.exists({str(expired)!r}) else 'old'\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': key, 'SecretAccessKey': 's',"
        f" 'SessionToken': 't', 'Expiration': {soon!r}}}))\n"
    )
    (tmp_path / "config").write_text(
        f"[profile changing]\ncredential_process = {sys.executable} {script}\n"
    )
    for name, value in {
        "AWS_PROFILE": "changing",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    refused: list[str] = []
    with Faulty({f"bucket/{path}": body for path, body in files.items()}) as server:

        def refuse(headers: dict[str, str]) -> Fault | None:
            if len(server.asked) == 8:
                expired.touch()
            if expired.exists() and "credential=old" in headers["target"].lower():
                refused.append(headers["target"])
                return Fault("403", code="ExpiredToken")
            return None

        server.refuse = refuse
        request = Request("s3://bucket", "snapshot", digest, server.url, tmp_path / "to")
        restore(request, lambda event: None)
        assert refused
        assert contents(tmp_path / "to") == {"model.safetensors": hash_of(data)}
        server.refuse = lambda headers: Fault("403", code="ExpiredToken")
        with pytest.raises(SnapshotError, match="ran out") as caught:
            open_source("s3://bucket", server.url).fetch("x", 10)
    assert caught.value.reason == "Forbidden"
    assert "Signature" not in caught.value.message


def body(**changes: object) -> bytes:
    file = {"path": "a", "size": 5000, "blake3": "0" * 64, "crc32c": ["00000000", "00000001"]}
    file |= {k: v for k, v in changes.items() if k in file}
    rest = {"version": 1, "chunkSize": 4096, "source": {"url": "s3://b", "revision": None}}
    rest |= {k: v for k, v in changes.items() if k in rest}
    return json.dumps({**rest, "files": [file]}).encode()


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (None, "NotFound"),
        (body()[:-9], "InvalidManifest"),
        (b"\xff\xfe" * 40, "InvalidManifest"),
        (b"[" * 100_000, "InvalidManifest"),
        (body(version=2), "InvalidManifest"),
        (body(path="../../etc/cron.d/x"), "InvalidManifest"),
        (body(path="/etc/passwd"), "InvalidManifest"),
        (body(size=1 << 62), "InvalidManifest"),
        (body(size=-1), "InvalidManifest"),
        (body(size=10**400), "InvalidManifest"),
        (body(chunkSize=1 << 40), "InvalidManifest"),
        (body(chunkSize=1 << 26, size=1 << 49, crc32c=["00000000"] * (1 << 23)), "NoSpace"),
        (body(path="x" * 300), "Unavailable"),
        (body(), "NotFound"),
    ],
    ids=["missing", "torn", "binary", "deep", "newer", "climbing", "absolute", "huge", "negative",
         "absurd", "chunks", "too-large", "long-name", "no-blob"],
)  # fmt: skip
def test_a_manifest_that_lies_writes_nothing(
    tmp_path: Path, manifest: bytes | None, reason: str
) -> None:
    text = manifest or b"gone"
    with Faulty({} if manifest is None else manifest_at(text)) as server:
        request = Request(server.url, "snapshot", manifests.digest_of(text), None, tmp_path / "to")
        with pytest.raises(SnapshotError) as caught:
            restore(request, lambda event: None)
    assert caught.value.reason == reason, caught.value.message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
