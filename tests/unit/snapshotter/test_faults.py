"""What a bad network or store does to a restore: it heals or it fails with a name, never wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.backends.local import LocalReader
from glowplug_snapshotter.destinations.directory import PARTIAL, Directory
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.plan import Item, Plan

from .tools import contents, finish, snapshotter, start, wait_for, write_model, write_store
from .web import Fault, Web

CHUNK = 16 * 2**20
Spoil = Callable[[str, int, int], Fault | None]


@pytest.fixture
def digest(web: Web, model: Path) -> str:
    """The model's snapshot lies on the web server."""
    return write_store(model, web.root / "store")


def restore(web: Web, digest: str, to: Path) -> tuple[object, ...]:
    return (
        "restore", "--from", f"{web.url}/store", "--kind", "snapshot", "--digest", digest,
        "--to", to,
    )  # fmt: skip


def second_chunk(fault: Fault, times: int) -> Spoil:
    """Spoil the first `times` requests for the second chunk of the weights."""
    asked: list[str] = []

    def spoil(path: str, first: int, number: int) -> Fault | None:
        if "blobs" not in path or first != CHUNK:
            return None
        asked.append(path)
        return fault if len(asked) <= times else None

    return spoil


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503),
        Fault(status=429),
        Fault(cut=0),
        Fault(cut=3_000_001),
        Fault(flip=CHUNK - 1),
        Fault(extra=b"more"),
    ],
)
def test_what_passes_is_healed(
    web: Web, digest: str, model: Path, tmp_path: Path, fault: Fault
) -> None:
    web.fault = second_chunk(fault, times=2)
    run = snapshotter(*restore(web, digest, tmp_path / "to"))
    assert run.status == 0, run.last
    assert contents(tmp_path / "to") == contents(model)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=500), "Unavailable"),
        (Fault(status=403), "Forbidden"),
        (Fault(status=404), "NotFound"),
        (Fault(status=416), "SourceChanged"),
        (Fault(cut=5_000_000), "Unavailable"),
        (Fault(flip=0), "ChecksumMismatch"),
    ],
)
def test_what_stays_fails_with_the_name_and_leaves_nothing_torn(
    web: Web, digest: str, tmp_path: Path, fault: Fault, reason: str
) -> None:
    web.fault = second_chunk(fault, times=1000)
    run = snapshotter(*restore(web, digest, tmp_path / "to"))
    assert run.status == 1
    assert run.last["event"] == "error"
    assert run.last["reason"] == reason
    assert f"{web.url}/store/blobs/" in run.last["message"]
    left = {p.name for p in (tmp_path / "to").rglob("*")}
    assert "model.safetensors" not in left - {
        p.name for p in (tmp_path / "to" / PARTIAL).rglob("*")
    }
    assert (PARTIAL in left) == (reason == "Unavailable"), "kept only to be gone on with"


def test_cancelling_leaves_no_torn_file_and_a_second_run_completes(
    web: Web, digest: str, model: Path, tmp_path: Path
) -> None:
    web.fault = lambda path, first, number: Fault(pause=1000) if first == CHUNK else None
    process = start(*restore(web, digest, tmp_path / "to"))
    wait_for(lambda: any((tmp_path / "to").glob(".glowplug-partial/model.safetensors")), 60)
    process.terminate()
    run = finish(process)
    assert run.status == 143
    assert run.last["reason"] == "Cancelled"
    expected = contents(model)
    left = contents(tmp_path / "to")
    assert "model.safetensors" not in left
    assert left.items() <= expected.items(), "what has a name is whole"
    web.fault = lambda path, first, number: None
    assert snapshotter(*restore(web, digest, tmp_path / "to")).status == 0
    assert contents(tmp_path / "to") == expected


def test_a_restarted_restore_keeps_what_is_complete_and_repairs_what_is_not(
    web: Web, digest: str, model: Path, tmp_path: Path
) -> None:
    to = tmp_path / "to"
    first = snapshotter(*restore(web, digest, to))
    assert first.last["reused"] is False
    asked = len(web.requests)
    second = snapshotter(*restore(web, digest, to))
    assert second.last["reused"] is True
    assert second.last["digest"] == digest
    assert len(web.requests) == asked, "nothing is asked of the store"
    (to / "model.safetensors").unlink()
    third = snapshotter(*restore(web, digest, to))
    assert third.last["reused"] is False
    assert contents(to) == contents(model)


def test_another_snapshot_replaces_the_first_one(
    web: Web, digest: str, tmp_path: Path, model: Path
) -> None:
    to = tmp_path / "to"
    snapshotter(*restore(web, digest, to))
    other = write_model(tmp_path / "other", megabytes=1, seed=2)
    (other / "config.json").unlink()
    web.root.joinpath("store").rename(web.root / "old")
    second = write_store(other, web.root / "store")
    assert snapshotter(*restore(web, second, to)).status == 0
    assert contents(to) == contents(other)


def test_too_little_room_is_said_before_anything_is_written(
    tmp_path: Path,
) -> None:
    weights = Item("model.safetensors", Entry("model.safetensors", 1 << 60), None)
    plan = Plan(LocalReader(tmp_path, "file:///x"), (weights,), CHUNK, "source", None)
    with pytest.raises(SnapshotError, match="memory limit") as caught:
        Directory(tmp_path / "to").prepare(plan)
    assert caught.value.reason == "NoSpace"
    assert not list((tmp_path / "to").iterdir())
