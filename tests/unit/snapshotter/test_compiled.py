"""Compile caches: what comes back is what was captured, for exactly the same key, or nothing."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from glowplug_snapshotter.checksum import blake3
from glowplug_snapshotter.compiled import capture as capturing
from glowplug_snapshotter.compiled.format import KEY_PARTS, checked_key, path_of
from glowplug_snapshotter.compiled.placing import Wanted, place
from glowplug_snapshotter.errors import SnapshotError

from .compile_caches import KEY, WORDS, captured, placed, shelf, write_cache
from .conftest import S3
from .tools import contents, snapshotter

__all__ = ["shelf"]


def stats(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mode & 0o7777, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".glowplug")
    }


def test_a_cache_comes_back_beside_its_model_through_a_real_store(
    s3: S3, model: Path, prefix: str, tmp_path: Path
) -> None:
    folder = write_cache(tmp_path / "cache", large=20_000_000)
    store = ("s3://store/" + prefix, "--endpoint", s3.endpoint)
    first = snapshotter("take", "--source", f"file://{model}", "--to", *store)
    digest = first.last["digest"]
    of = ("--digest", digest, "--to", *store, "--compile-cache", folder, *WORDS)
    run = snapshotter("take", *of)
    assert run.status == 0, run.last
    told = run.last["compileCache"]
    assert told["files"] == 304
    assert told["uploaded"] < told["bytes"], "the same content is kept once"
    assert snapshotter("take", *of).last["compileCache"]["uploaded"] == 0
    again = snapshotter("take", "--source", f"file://{model}", "--to", *store)
    assert again.last["digest"] == digest, "the cache came later, the snapshot is the same"

    swept = snapshotter("gc", "--from", *store, "--delete", "--older-than", "0s").last
    assert (swept["blobs"], swept["caches"]) == (0, 0)
    to = tmp_path / "to"
    fixed = ("--from", *store, "--digest", digest, "--kind", "snapshot", "--to", to / "model")
    restored = snapshotter("restore", *fixed, "--compile-cache", to / "cache", *WORDS)
    assert restored.status == 0, restored.last
    assert restored.last["compileCache"]["used"] is True, restored.last
    assert restored.last["compileCache"]["bytes"] == told["bytes"]
    assert contents(to / "model") == contents(model)
    (to / "cache" / ".glowplug-compiled.json").unlink()
    assert contents(to / "cache") == contents(folder)

    assert snapshotter("forget", "--from", *store, "--digest", digest).last["caches"] == 1
    swept = snapshotter("gc", "--from", *store, "--delete", "--older-than", "0s").last
    assert swept["blobs"] == 5
    assert s3.keys("store", f"{prefix}/") == set()


def test_times_and_modes_come_back_but_no_privilege(
    shelf: tuple[Path, str], tmp_path: Path
) -> None:
    folder = write_cache(tmp_path / "cache")
    captured(shelf, folder)
    assert placed(shelf, tmp_path / "to")["used"] is True
    assert contents(tmp_path / "to").items() >= contents(folder).items()
    before, after = stats(folder), stats(tmp_path / "to")
    assert before.pop("triton/launcher.so")[0] == 0o6755
    assert after.pop("triton/launcher.so")[0] == 0o755, "setuid is not kept"
    assert before == after


@pytest.mark.parametrize("part", KEY_PARTS)
@pytest.mark.parametrize("change", ["other", "missing", "empty", "longer", "number"])
def test_a_wrong_key_is_never_used(
    shelf: tuple[Path, str], tmp_path: Path, part: str, change: str
) -> None:
    captured(shelf, write_cache(tmp_path / "cache", files=1))
    changed = {"other": "x", "empty": "", "longer": KEY[part] + "0", "number": 5}
    wrong = {**KEY, part: changed.get(change)}
    if change == "missing":
        del wrong[part]
    told = placed(shelf, tmp_path / "to", wrong)
    assert told["used"] is False
    assert told["reason"]
    assert not list((tmp_path).glob("to/*")), "the directory stays empty"
    if change in ("missing", "empty", "number"):
        assert part in told["reason"]
        with pytest.raises(SnapshotError, match=part):
            checked_key(wrong)
    assert placed(shelf, tmp_path / "to", KEY)["used"] is True


def test_what_is_known_of_no_key_or_another_snapshot_is_not_used(
    shelf: tuple[Path, str], tmp_path: Path
) -> None:
    captured(shelf, write_cache(tmp_path / "cache", files=1))
    assert "'cuda'" in placed(shelf, tmp_path / "to", {**KEY, "cuda": "13"})["reason"]
    store, digest = shelf
    other = "blake3:" + "0" * 64
    moved = store / path_of(other, KEY)
    moved.parent.mkdir(parents=True)
    moved.write_bytes((store / path_of(digest, KEY)).read_bytes())
    told = placed((store, other), tmp_path / "to")
    assert (told["used"], "another snapshot" in told["reason"]) == (False, True)
    from_source = place(lambda: None, None, Wanted(KEY, tmp_path / "to"))
    assert from_source["used"] is False


def resign(data: bytes, change: Callable[[dict], None]) -> bytes:
    """Change a cache's manifest as a liar would, who can compute digests too."""
    whole = json.loads(data)
    change(whole["body"])
    text = json.dumps(whole["body"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    whole["digest"] = blake3(text.encode(errors="surrogatepass")).hexdigest()
    return json.dumps(whole).encode()


def first(**values: object) -> Callable[[dict], None]:
    return lambda body: body["files"][0].update(values)


@pytest.mark.parametrize(
    "change",
    [
        first(path="../out"),
        first(path="/tmp/out"),
        first(path="a/../../out"),
        first(path="inductor"),
        first(path="inductor/01/graph-1/code.py/x"),
        first(path="\ud800"),
        first(path="n" * 5000),
        first(offset=-1),
        first(offset=7),
        first(size=1 << 50),
        first(mtime="now"),
        first(blake3="0" * 64),
        lambda body: body.update(version=2),
        lambda body: body["files"].append(body["files"][0]),
        lambda body: body["files"].pop(0),
        lambda body: body["pack"].update(size=1),
        lambda body: body["pack"].update(blake3="0" * 64),
        lambda body: body.pop("key"),
    ],
)
def test_a_manifest_that_lies_is_not_used_and_writes_nothing_anywhere(
    shelf: tuple[Path, str], tmp_path: Path, change: Callable[[dict], None]
) -> None:
    store, digest = shelf
    captured(shelf, write_cache(tmp_path / "cache", files=3))
    path = store / path_of(digest, KEY)
    path.write_bytes(resign(path.read_bytes(), lambda body: None))
    assert placed(shelf, tmp_path / "good")["used"] is True, "the liar's tool works"
    path.write_bytes(resign(path.read_bytes(), change))
    before = {p for p in tmp_path.rglob("*") if "to" not in p.parts}
    told = placed(shelf, tmp_path / "to")
    assert told["used"] is False
    assert told["reason"].endswith(".")
    assert not list(tmp_path.glob("to/*"))
    assert {p for p in tmp_path.rglob("*") if "to" not in p.parts} - {tmp_path / "to"} == before


@pytest.mark.parametrize("damage", ["flip the pack", "cut the pack", "cut the manifest", "none"])
def test_a_damaged_cache_is_not_used(shelf: tuple[Path, str], tmp_path: Path, damage: str) -> None:
    store, digest = shelf
    told = captured(shelf, write_cache(tmp_path / "cache", files=5))
    blob = json.loads((store / path_of(digest, KEY)).read_bytes())["body"]["pack"]["blake3"]
    path = store / (path_of(digest, KEY) if "manifest" in damage else f"blobs/{blob}")
    data = bytearray(path.read_bytes())
    if "flip" in damage:
        data[len(data) // 2] ^= 1
    path.write_bytes(data[:-1] if "cut" in damage else data)
    found = placed(shelf, tmp_path / "to")
    assert found["used"] is (damage == "none"), (found, told)
    assert bool(list(tmp_path.glob("to/*"))) is (damage == "none")


def test_links_and_special_files_are_left_out_and_told(
    shelf: tuple[Path, str], tmp_path: Path
) -> None:
    folder = write_cache(tmp_path / "cache", files=2)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("not for the store")
    (folder / "out").symlink_to(tmp_path / "secret" / "key")
    (folder / "dir").symlink_to(tmp_path / "secret")
    (folder / "in").symlink_to(folder / ".hidden")
    os.mkfifo(folder / "pipe")
    told: list[dict] = []
    result = captured(shelf, folder, tell=told)
    assert result["leftOut"] == 4
    assert sorted(e["name"] for e in told if e["event"] == "leftOut") == [
        "dir",
        "in",
        "out",
        "pipe",
    ]
    assert all(
        b"not for the store" not in p.read_bytes() for p in shelf[0].rglob("*") if p.is_file()
    )


def test_a_directory_that_is_no_cache_is_refused(
    shelf: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SnapshotError, match="not a directory"):
        captured(shelf, tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SnapshotError, match="no files"):
        captured(shelf, tmp_path / "empty")
    monkeypatch.setattr(capturing, "MOST_FILES", 10)
    with pytest.raises(SnapshotError, match="not a compile cache"):
        captured(shelf, write_cache(tmp_path / "cache", files=20))
    with pytest.raises(SnapshotError, match="is not there whole"):
        captured((shelf[0], "blake3:" + "0" * 64), tmp_path / "cache")


def test_a_cache_that_is_written_while_it_is_read_is_refused(
    shelf: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cache(tmp_path / "cache", files=2)
    listed = capturing._pack

    def then_written(*arguments):
        members = listed(*arguments)
        (folder / ".hidden").write_text("also THE engine's")
        return members

    monkeypatch.setattr(capturing, "_pack", then_written)
    with pytest.raises(SnapshotError) as caught:
        captured(shelf, folder)
    assert caught.value.reason == "SourceChanged"
    assert not list(shelf[0].glob("caches/*/*"))


def test_a_restarted_container_keeps_what_its_engine_added(
    shelf: tuple[Path, str], tmp_path: Path
) -> None:
    captured(shelf, write_cache(tmp_path / "cache", files=2))
    to = tmp_path / "to"
    assert placed(shelf, to)["reused"] is False
    (to / "new").write_text("compiled since")
    assert placed(shelf, to)["reused"] is True
    assert (to / "new").exists()
    other = placed(shelf, to, {**KEY, "driver": "590"})
    assert (other["used"], "holds files already" in other["reason"]) == (False, True)


def test_what_a_killed_restore_left_is_removed(shelf: tuple[Path, str], tmp_path: Path) -> None:
    folder = write_cache(tmp_path / "cache", files=2)
    captured(shelf, folder)
    (tmp_path / "to" / ".glowplug-compiling-1" / "x").mkdir(parents=True)
    assert placed(shelf, tmp_path / "to")["used"] is True
    assert contents(tmp_path / "to").keys() - contents(folder).keys() == {".glowplug-compiled.json"}


def test_a_directory_that_cannot_be_written_does_not_stop_the_start(
    shelf: tuple[Path, str], tmp_path: Path
) -> None:
    captured(shelf, write_cache(tmp_path / "cache", files=2))
    (tmp_path / "file").write_text("in the way")
    told = placed(shelf, tmp_path / "file" / "to")
    assert told["used"] is False
    assert str(tmp_path / "file" / "to") in told["reason"]
