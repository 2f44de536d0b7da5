"""Tensors come in order, proved and whole, from snapshots and directories, in bounded memory."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import glowplug_snapshotter
from glowplug_snapshotter import SnapshotError
from glowplug_snapshotter.gpu.dtypes import DTYPES
from glowplug_snapshotter.loading import selection, weights
from glowplug_snapshotter.loading.assembly import Assembly
from glowplug_snapshotter.plan import plan_source

from ..caches import Caches
from ..web import Fault, Web
from .fakes import FakeDevice, FakeEvent
from .models import Spec, size_of, write_safetensors, write_snapshot

CHUNK = 4096
SPECS: list[Spec] = [
    ("embed", "BF16", (40, 64)),  # over chunks' borders
    ("scale", "F32", ()),
    ("none", "F16", (0, 8)),
    ("experts", "F8_E4M3", (3, 5, 7)),  # what follows is aligned to nothing
    ("odd", "F64", (11,)),
    ("packed", "F4", (6, 8)),
    ("six", "F6_E2M3", (4, 4)),
    ("mask", "BOOL", (9,)),
    ("wave", "C64", (3,)),
    ("head", "I64", (2000,)),
]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    device = FakeDevice()
    monkeypatch.setattr(weights, "open_device", lambda name: device)
    return device


def taken(tensor: object) -> bytes:
    """Return a tensor's bytes through DLPack, as its consumer sees them."""
    return np.from_dlpack(tensor.flat()).tobytes()


def load(uri: object, **options: object) -> list[tuple[str, bytes]]:
    return [
        (name, taken(tensor))
        for name, tensor in glowplug_snapshotter.load(uri, framework="dlpack", **options)
    ]


@pytest.mark.parametrize("kind", ["snapshot", "headerless", "directory", "file"])
@pytest.mark.parametrize("where", ["host", "device"])
def test_all_tensors_come_whole_and_in_the_files_order(
    kind: str, where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if where == "device":
        request.getfixturevalue("device")
    data = write_safetensors(tmp_path / "m" / "model.safetensors", SPECS)
    uri = {
        "directory": tmp_path / "m",
        "file": tmp_path / "m" / "model.safetensors",
    }.get(kind) or write_snapshot(
        tmp_path / "m", tmp_path / "store", chunk_size=CHUNK, tensors=kind == "snapshot"
    )
    assert load(uri) == [(name, data[name]) for name, _, _ in SPECS]


def test_shards_come_by_name_and_only_those_of_the_index(tmp_path: Path) -> None:
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    write_safetensors(tmp_path / "m" / parts[1], [("b", "U8", (9,))], seed=1)
    write_safetensors(tmp_path / "m" / parts[0], [("z", "U8", (9,))], seed=2)
    write_safetensors(tmp_path / "m" / "consolidated.safetensors", [("twice", "U8", (9,))])
    index = tmp_path / "m" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"z": parts[0], "b": parts[1]}}))
    uri = write_snapshot(tmp_path / "m", tmp_path / "store")
    assert [name for name, _ in load(uri)] == ["z", "b"]
    index.write_text(json.dumps({"weight_map": {"z": parts[0], "b": "gone.safetensors"}}))
    with pytest.raises(SnapshotError, match=r"names gone\.safetensors") as caught:
        load(tmp_path / "m")
    assert caught.value.reason == "NotFound"


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_damaged_chunk_is_never_handed_out(
    at: int, tmp_path: Path, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glowplug_snapshotter.retry.FIRST_PAUSE", 0.001)
    specs: list[Spec] = [(f"t{n}", "U8", (CHUNK,)) for n in range(4)]
    data = write_safetensors(tmp_path / "m" / "model.safetensors", specs)
    uri = write_snapshot(tmp_path / "m", tmp_path / "store", chunk_size=CHUNK)
    [blob] = (tmp_path / "store" / "blobs").iterdir()
    damaged = bytearray(blob.read_bytes())
    damaged[at * CHUNK + CHUNK // 2] ^= 1
    blob.write_bytes(damaged)
    got = []

    def consume() -> None:
        for name, tensor in glowplug_snapshotter.load(uri, framework="dlpack"):
            got.append((name, taken(tensor)))

    with pytest.raises(SnapshotError) as caught:
        consume()
    assert caught.value.reason == "ChecksumMismatch"
    assert got == [(name, data[name]) for name, _, _ in specs[: len(got)]]
    assert len(got) <= at
    assert device.closed


FAULTS = {
    "500": Fault(status=500),
    "busy": Fault(status=503),
    "cut": Fault(cut=1000),
    "flipped": Fault(flip=7),
    "longer": Fault(extra=b"more"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_what_passes_on_the_network_is_healed(
    fault: str, web: Web, tmp_path: Path, device: FakeDevice
) -> None:
    data = write_safetensors(tmp_path / "m" / "model.safetensors", SPECS)
    path = write_snapshot(tmp_path / "m", web.root / "store", chunk_size=CHUNK)
    met = set()

    def once(path: str, first: int, number: int) -> Fault | None:
        if "blobs" not in path or first % (2 * CHUNK) or first in met:
            return None
        met.add(first)
        return FAULTS[fault]

    web.fault = once
    uri = path.replace(f"file://{web.root}", web.url)
    assert load(uri) == [(name, data[name]) for name, _, _ in SPECS]
    assert len(met) > 1


async def test_a_node_cache_is_asked_first(
    tmp_path: Path, web: Web, free_port: Callable[[], int]
) -> None:
    data = write_safetensors(tmp_path / "m" / "model.safetensors", SPECS)
    write_snapshot(tmp_path / "m", web.root, chunk_size=CHUNK)
    [manifest] = (web.root / "manifests").iterdir()
    expected = [(name, data[name]) for name, _, _ in SPECS]
    caches = Caches(tmp_path, web, free_port)
    node = await caches.start()
    try:
        uri = f"{web.url}/manifests/{manifest.name}/manifest.json"
        assert await asyncio.to_thread(load, uri, cache=node.url) == expected
        web.requests.clear()
        assert await asyncio.to_thread(load, uri, cache=node.url) == expected
        assert web.requests == []
    finally:
        await caches.stop(node)
    assert await asyncio.to_thread(load, uri, cache=node.url) == expected


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 12), max_size=3)),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([1, 300, 5000, 1 << 30]),
)
def test_any_dtypes_and_alignments_in_any_shares(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[tuple[str, list[int]]],
    world: int,
    late: int,
    ahead: int,
) -> None:
    specs = [
        (f"t{n}", dtype, (*shape, 8 if DTYPES[dtype].bits < 8 else 3))
        for n, (dtype, shape) in enumerate(kinds)
    ]
    folder = tmp_path_factory.mktemp("any")
    data = write_safetensors(folder / "m" / "model.safetensors", specs)
    uri = write_snapshot(folder / "m", folder / "store", chunk_size=CHUNK)
    device = FakeDevice(late)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "open_device", lambda name: device)
        patch.setattr(weights, "AHEAD", ahead)
        patch.setattr("glowplug_snapshotter.loading.selection.STRIPE", 500)
        shares = [load(uri, rank=rank, world=world) for rank in range(world)]
    names = [name for share in shares for name, _ in share]
    assert sorted(names) == sorted(data)  # each goes to exactly one
    for share in shares:
        assert share == [(name, data[name]) for name, _, _ in specs if name in dict(share)]
    assert device.faults == []
    assert device.alive == 0


def test_a_slot_is_used_again_only_after_its_copies(tmp_path: Path, device: FakeDevice) -> None:
    device.late = 1 << 30  # nothing is copied before somebody waits for it
    data = write_safetensors(tmp_path / "m" / "model.safetensors", [("t", "U8", (100 * CHUNK,))])
    uri = write_snapshot(tmp_path / "m", tmp_path / "store", chunk_size=CHUNK)
    assert load(uri) == [("t", data["t"])]
    assert device.faults == []
    assert len(device.slots) < 20 < device.begun


def test_a_tensor_waits_for_all_of_its_copies_whatever_thread_notes_them_last(
    tmp_path: Path,
) -> None:
    second_noted = threading.Event()

    class Overtaken(FakeDevice):
        def mark(self) -> FakeEvent:
            event = super().mark()
            if event.after == 1:
                assert second_noted.wait(60)
            return event

    write_safetensors(tmp_path / "model.safetensors", [("t", "U8", (2 * CHUNK,))])
    plan = plan_source(f"file://{tmp_path}", None)
    [shard] = selection.shards(plan, {})
    [window] = selection.windows(shard, lambda tensor: True, CHUNK)
    assembly = Assembly(Overtaken(late=1 << 30), [window], CHUNK, 1 << 30)
    target = assembly.open(window.item)
    for number in range(3):
        length = min(CHUNK, window.item.entry.size - number * CHUNK)
        target.room(number * CHUNK, length).view[:] = bytes([number + 1]) * length
    first = threading.Thread(target=assembly.record, args=(0, 0))
    first.start()
    while not assembly._device.begun:
        time.sleep(0.001)
    assembly.record(1, 0)
    assembly.record(2, 0)
    second_noted.set()
    [(_, data)] = assembly.tensors(taken)
    first.join()
    assert [data[0], data[CHUNK], data[-1]] == [1, 2, 3]


def test_memory_is_bounded_and_freed_by_the_last_user(
    tmp_path: Path, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "AHEAD", 64 * CHUNK)
    specs: list[Spec] = [(f"t{n}", "U8", (10 * CHUNK + 1,)) for n in range(60)]
    data = write_safetensors(tmp_path / "m" / "model.safetensors", specs)
    uri = write_snapshot(tmp_path / "m", tmp_path / "store", chunk_size=CHUNK)
    kept = None
    for name, tensor in glowplug_snapshotter.load(uri, framework="dlpack"):
        kept = kept if name != "t30" else np.from_dlpack(tensor)
    assert device.most_alive <= (64 + 4 * 10) * CHUNK
    del tensor
    assert device.alive == 10 * CHUNK + 1
    assert kept.tobytes() == data["t30"]
    del kept
    assert device.alive == 0


def test_a_load_that_is_left_early_ends_and_frees(tmp_path: Path, device: FakeDevice) -> None:
    write_safetensors(tmp_path / "m" / "model.safetensors", [("a", "U8", (9,)), *SPECS[4:]])
    uri = write_snapshot(tmp_path / "m", tmp_path / "store", chunk_size=CHUNK)
    with closing(glowplug_snapshotter.load(uri, framework="dlpack")) as tensors:
        next(tensors)
    assert device.closed
    assert device.alive == 0


def test_a_full_device_is_said(tmp_path: Path, device: FakeDevice) -> None:
    device.room = 100
    write_safetensors(tmp_path / "m" / "model.safetensors", [("a", "U8", (101,))])
    with pytest.raises(SnapshotError) as caught:
        load(tmp_path / "m")
    assert caught.value.reason == "NoSpace"


def test_only_chunks_with_wanted_tensors_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs: list[Spec] = [(f"layers.{n}", "U8", (CHUNK,)) for n in range(50)]
    data = write_safetensors(tmp_path / "m" / "model.safetensors", specs)
    uri = write_snapshot(tmp_path / "m", tmp_path / "store", chunk_size=CHUNK)
    asked = []
    from glowplug_snapshotter.backends.local import LocalReader

    read_into = LocalReader.read_into

    def counted(self, entry, offset, view, ticket=None):
        asked.append(len(view))
        read_into(self, entry, offset, view, ticket)

    monkeypatch.setattr(LocalReader, "read_into", counted)
    assert load(uri, select=lambda name: name in ("layers.3", "layers.40")) == [
        (name, data[name]) for name in ("layers.3", "layers.40")
    ]
    assert sum(asked) == 4 * CHUNK


BROKEN = {
    "overlap": [("a", "U8", [8], [0, 8]), ("b", "U8", [8], [4, 12])],
    "dtype": [("a", "U9", [8], [0, 8])],
    "shape": [("a", "F32", [8], [0, 8])],
    "negative": [("a", "U8", [-8], [8, 0])],
    "past the end": [("a", "U8", [99], [0, 99])],
}


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_a_header_that_lies_is_refused(what: str, tmp_path: Path) -> None:
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for name, dtype, shape, offsets in BROKEN[what]
    }
    head = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(12))
    with pytest.raises(SnapshotError) as caught:
        load(path)
    assert caught.value.reason in ("InvalidManifest", "InvalidSource", "Unsupported")
    assert "a" in caught.value.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "no device to load to"),
        ({"device": "cuda:x"}, "no device to load to"),
        ({"device": "cuda"}, "There is no CUDA driver here"),
    ],
)
def test_a_device_that_is_not_there_is_said(
    options: dict[str, str], message: str, tmp_path: Path
) -> None:
    write_safetensors(tmp_path / "model.safetensors", [("a", "U8", (1,))])
    with pytest.raises(SnapshotError, match=message):
        load(tmp_path, **options)


def test_a_host_tensor_has_its_dtype_in_dlpack(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", [("x", "U8", (1,)), ("a", "F32", (2, 3))])
    loaded = dict(glowplug_snapshotter.load(tmp_path, framework="dlpack"))
    array = np.from_dlpack(loaded["a"])
    assert (array.dtype, array.shape, array.nbytes) == (np.float32, (2, 3), size_of("F32", (2, 3)))
    assert array.ctypes.data % 256 == 0
    assert array.tobytes() == bytes(loaded["a"].view)
