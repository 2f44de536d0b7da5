"""Garbage goes, and nothing that a live manifest names, whatever happens at the same time."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.gc import Collection, forget
from glowplug_snapshotter.intents import LIFE
from glowplug_snapshotter.store import Store, open_store
from glowplug_snapshotter.take import Take

from .conftest import S3
from .tools import OWNER, contents, snapshotter, start, write_model
from .turns import Actor, Files, Memory

MODELS = [
    {"a": b"shared by all", "b": b"of 0 and 1"},
    {"a": b"shared by all", "b": b"of 0 and 1", "c": b"of 1 and 2"},
    {"a": b"shared by all", "c": b"of 1 and 2"},
]


class PatientStore(Store):
    """A store whose waits pass on its own clock."""

    def commit(self, *arguments, **_):
        return super().commit(*arguments, wait=self.bucket.wait)


def take(number: int):
    def work(bucket: Actor) -> str:
        store = PatientStore(bucket, lambda: None)
        taken = Take(f"s3://m{number}", Files(MODELS[number]), store, lambda event: None).run()
        return taken["digest"]

    return work


def gc(bucket: Actor) -> None:
    collection = Collection(bucket, None, lambda event: None, 0.0, clock=bucket.time)
    collection.run(delete=True, now=bucket.time())


def drop(number: int):
    def work(bucket: Actor) -> None:
        with contextlib.suppress(SnapshotError):  # it is not there
            forget(bucket, DIGESTS[number])

    return work


def whole_and_live(memory: Memory) -> set[str]:
    """Check that all that the manifests name is there; return it."""
    live = set()
    for path, (data, _) in memory.objects.items():
        if path.startswith("manifests/"):
            for file in manifests.decode(data, path).files:
                assert memory.objects.get(f"blobs/{file.blake3}"), f"{path} lost {file.path}"
                live.add(f"blobs/{file.blake3}")
    return live


def run(memory: Memory, work) -> object:
    results = []
    Actor(memory, lambda bucket: results.append(work(bucket))).finish()
    return results[0]


DIGESTS = [run(Memory(), take(number)) for number in range(3)]
ACTIONS = st.sampled_from([gc, *map(take, range(3)), *map(drop, range(3))])


@settings(max_examples=int(os.environ.get("GLOWPLUG_GC_EXAMPLES", "150")), deadline=None)
@given(
    gone=st.integers(0, 2),
    before=st.lists(ACTIONS, max_size=2),
    wanted=st.integers(0, 2),
    together=st.lists(ACTIONS, max_size=2),
    turns=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12) | st.just(60)), max_size=40),
    killed=st.dictionaries(st.integers(0, 3), st.integers(0, 30), max_size=2),
)
def test_no_order_of_takes_collections_and_kills_loses_a_live_blob(
    gone: int,
    before: list,
    wanted: int,
    together: list,
    turns: list[tuple[int, int]],
    killed: dict[int, int],
) -> None:
    memory = Memory()
    for work in [take(gone), drop(gone), *before]:
        run(memory, work)
    actors = [Actor(memory, work) for work in [gc, take(wanted), *together]]
    done = [0] * len(actors)
    rest = [(n, 1) for _ in range(2000) for n in range(len(actors))]  # then each in its turn
    for choice, times in [*turns, *rest]:
        n = choice % len(actors)
        for _ in range(times):
            if actors[n].ended:
                break
            if killed.get(n) == done[n]:
                actors[n].kill()
                event("killed")
                break
            actors[n].turn()
            done[n] += 1
            whole_and_live(memory)
        if all(actor.ended for actor in actors):
            break
    assert all(actor.ended for actor in actors)
    assert [actor.error for actor in actors if actor.error] == []
    memory.now += 3 * LIFE
    run(memory, gc)
    live = whole_and_live(memory)
    kinds = {path.split("/")[0] for path in memory.objects}
    assert {path for path in memory.objects if path.startswith("blobs/")} == live
    assert kinds <= {"blobs", "manifests", "sources"}, "notes of the killed are swept, too"
    for number, model in enumerate(MODELS):  # and every model can be taken as ever
        assert run(memory, take(number)) == DIGESTS[number], model
    whole_and_live(memory)


def test_a_take_waits_for_a_collection_that_condemned_what_it_reuses() -> None:
    memory = Memory()
    run(memory, take(0))
    run(memory, drop(0))
    collector = Actor(memory, gc)
    while sum(path.startswith("blobs/") for path in memory.objects) == 2:
        collector.turn()
    taker = Actor(memory, take(0))
    for _ in range(40):
        taker.turn()
    assert not any(path.startswith("manifests/") for path in memory.objects), "it goes on waiting"
    collector.finish()
    assert sum(path.startswith("blobs/") for path in memory.objects) == 1, "the one it brought back"
    taker.finish()
    assert len(whole_and_live(memory)) == 2, "and the one that went while it waited"


class KeepsAll(Actor):
    """A bucket whose credentials may not delete."""

    def delete(self, paths: object) -> None:
        raise SnapshotError("Forbidden", "DeleteObject is not allowed.")


def test_a_take_that_may_not_delete_leaves_its_note_to_gc() -> None:
    memory = Memory()
    KeepsAll(memory, take(0)).finish()
    assert any(path.startswith("manifests/") for path in memory.objects)
    assert any(path.startswith("intents/") for path in memory.objects)
    memory.now += 3 * LIFE
    run(memory, gc)
    assert not any(path.startswith("intents/") for path in memory.objects)
    assert len(whole_and_live(memory)) == 2


@pytest.mark.parametrize("damage", [b"{", b'{"version": 2}', None])
def test_nothing_is_deleted_while_a_manifest_cannot_be_read(damage: bytes | None) -> None:
    memory = Memory()
    run(memory, take(0))
    run(memory, take(1))
    run(memory, drop(0))
    path = next(path for path in memory.objects if path.startswith("manifests/"))
    data = memory.objects[path][0] + b" " if damage is None else damage
    memory.objects[path] = (data, memory.now)
    before = set(memory.objects)
    with pytest.raises(SnapshotError, match="nothing was deleted") as caught:
        run(memory, gc)
    assert caught.value.reason == "InvalidManifest"
    assert set(memory.objects) == before


# against a real S3


@pytest.fixture
def names(s3: S3, prefix: str) -> tuple[str, ...]:
    return ("--from", f"s3://store/{prefix}", "--endpoint", s3.endpoint)


def test_gc_shows_then_deletes_what_only_a_forgotten_snapshot_named(
    s3: S3, names: tuple[str, ...], prefix: str, tmp_path: Path
) -> None:
    base = write_model(tmp_path / "base", megabytes=20)
    tuned = write_model(tmp_path / "tuned", megabytes=20)
    (tuned / "config.json").write_text('{"tuned": true}')
    to = ("--to", f"s3://store/{prefix}", "--endpoint", s3.endpoint)
    first, second = (
        snapshotter("take", "--source", f"file://{folder}", *to).last for folder in (base, tuned)
    )
    store = open_store(f"s3://store/{prefix}", s3.endpoint, OWNER)
    store.uploads.open(f"uploads/{'a' * 64}").send([b"of a run that was killed"])
    store.bucket.put(f"uploads/{'b' * 64}", b"never adopted")
    store.bucket.put("blobs/README", b"somebody else's")
    everything = s3.keys("store", f"{prefix}/")

    young = snapshotter("gc", *names, "--delete").last
    assert (young["blobs"], young["records"], young["uploads"]) == (0, 0, 0)
    assert s3.keys("store", f"{prefix}/") == everything

    assert snapshotter("forget", *names, "--digest", first["digest"]).status == 0
    again = snapshotter("forget", *names, "--digest", first["digest"]).last
    assert again["reason"] == "NotFound"

    shown = snapshotter("gc", *names, "--older-than", "0s")
    config = next(e for e in shown.events if e.get("name", "").startswith("blobs/"))
    assert config["bytes"] == (base / "config.json").stat().st_size
    assert {k: shown.last[k] for k in ("deleted", "snapshots", "blobs", "records", "uploads")} == {
        "deleted": False, "snapshots": 1, "blobs": 1, "records": 1, "uploads": 2,
    }  # fmt: skip
    assert f"{prefix}/uploads/{'a' * 64}" in str(s3.client.list_multipart_uploads(Bucket="store"))

    done = snapshotter("gc", *names, "--older-than", "0s", "--delete")
    assert done.status == 0, done.last
    assert done.last == {**shown.last, "deleted": True}
    left = s3.keys("store", f"{prefix}/")
    assert {k.split("/")[0] for k in left} == {"blobs", "manifests", "sources"}
    assert len(everything - left) == 4, "the manifest, its own blob and record, the lost upload"
    assert "blobs/README" in left
    assert prefix not in str(s3.client.list_multipart_uploads(Bucket="store").get("Uploads"))
    fixed = (*names, "--digest", second["digest"], "--kind", "snapshot", "--to", tmp_path / "to")
    assert snapshotter("restore", *fixed).status == 0
    assert contents(tmp_path / "to") == contents(tuned)


@pytest.mark.parametrize("age", ["1", "h", "-1h", "24 h", "1w"])
def test_an_age_that_is_none_is_refused(age: str) -> None:
    run = snapshotter_fails("gc", "--from", "s3://b/p", f"--older-than={age}")
    assert "is not an age" in run


def snapshotter_fails(*arguments: str) -> str:
    process = start(*arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    return errors.decode()
