"""The CUDA path through the driver's own ABI: against a library that checks every call it gets.

It stands for libcuda over host memory, so this proves calls, order and lifetimes, not speed.
"""

import ctypes
import gc
import shutil
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

import glowplug_snapshotter
from glowplug_snapshotter import SnapshotError
from glowplug_snapshotter.gpu.cuda import Cuda
from glowplug_snapshotter.gpu.driver import Driver
from glowplug_snapshotter.loading import weights

from ..load.models import write_safetensors, write_snapshot

CHUNK = 4096
MEMORY, PINNED, STREAMS, EVENTS, CONTEXTS = range(5)
NOTHING = [0, 0, 0, 0]

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc"
)


class Library:
    """The library, and what it has alive."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = ctypes.CDLL(self.path)
        self._library.fake_count.restype = ctypes.c_long
        self._library.fake_room.argtypes = (ctypes.c_size_t,)

    def alive(self) -> list[int]:
        return [self._library.fake_count(kind) for kind in (MEMORY, PINNED, STREAMS, EVENTS)]

    def contexts(self) -> int:
        gc.collect()  # they are shared with torch and cost nothing: soon is enough
        return self._library.fake_count(CONTEXTS)

    def set_room(self, size: int) -> None:
        self._library.fake_room(size)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = Path(__file__).with_name("libcuda.c")
    out = tmp_path_factory.mktemp("libcuda") / "libcuda.so"
    command = ["cc", "-Wall", "-Werror", "-shared", "-fPIC", "-o", out, source, "-lpthread"]
    subprocess.run(command, check=True)
    return out


@pytest.fixture
def library(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """A library of the test's own: dlopen shares one by its path."""
    library = Library(Path(shutil.copy(built, tmp_path)))
    monkeypatch.setattr(weights, "open_device", lambda name: Cuda(0, Driver(library.path)))
    return library


def bytes_of(tensor: object) -> bytes:
    """Read a tensor's memory where DLPack says that it is."""
    capsule = tensor.__dlpack__()
    pointer = ctypes.PyDLL(None).PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    data = ctypes.c_void_p.from_address(pointer(capsule, b"dltensor")).value
    return ctypes.string_at(data, tensor.nbytes)


def test_a_model_comes_through_pinned_slots_and_leaves_nothing(
    library: Library, tmp_path: Path
) -> None:
    specs = [(f"t{n}", "BF16", (n * 700 + 1,)) for n in range(40)]
    data = write_safetensors(tmp_path / "m" / "model.safetensors", specs)
    uri = write_snapshot(tmp_path / "m", tmp_path / "store", chunk_size=CHUNK)
    kept = {}
    for name, tensor in glowplug_snapshotter.load(uri, "cuda", framework="dlpack"):
        assert tensor.__dlpack_device__() == (2, 0)
        assert bytes_of(tensor) == data[name]
        if name in ("t7", "t31"):
            kept[name] = tensor
    del tensor
    assert library.alive() == [2, 0, 0, 0]
    assert library.contexts() == 1
    assert {name: bytes_of(tensor) for name, tensor in kept.items()} == {
        name: data[name] for name in kept
    }
    with pytest.raises(SnapshotError, match="in a GPU's memory"):
        _ = kept["t7"].view
    kept.clear()
    assert library.alive() == NOTHING
    assert library.contexts() == 0


def test_memory_is_freed_from_whatever_thread(library: Library, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", [("a", "U8", (9,))])
    loaded = [t for _, t in glowplug_snapshotter.load(tmp_path, "cuda", framework="dlpack")]
    assert library.alive()[MEMORY] == 1
    thread = threading.Thread(target=loaded.clear)
    thread.start()
    thread.join()
    assert library.alive() == NOTHING


def test_a_load_left_early_waits_for_its_copies_and_frees(library: Library, tmp_path: Path) -> None:
    specs = [(f"t{n}", "U8", (3 * CHUNK,)) for n in range(40)]
    write_safetensors(tmp_path / "m" / "model.safetensors", specs)
    uri = write_snapshot(tmp_path / "m", tmp_path / "store", chunk_size=CHUNK)
    with closing(glowplug_snapshotter.load(uri, "cuda", framework="dlpack")) as tensors:
        next(tensors)
    assert library.alive() == NOTHING


def test_a_load_that_is_never_begun_leaves_nothing(library: Library, tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", [("a", "U8", (9,))])
    tensors = glowplug_snapshotter.load(tmp_path, "cuda", framework="dlpack")
    assert library.alive()[STREAMS] == 1
    del tensors
    assert library.alive() == NOTHING


def test_a_full_gpu_is_a_sentence(library: Library, tmp_path: Path) -> None:
    library.set_room(100)
    write_safetensors(tmp_path / "model.safetensors", [("a", "U8", (101,))])
    with pytest.raises(SnapshotError, match="The GPU or its pinned host memory is full") as caught:
        list(glowplug_snapshotter.load(tmp_path, "cuda", framework="dlpack"))
    assert caught.value.reason == "NoSpace"
    assert library.alive() == NOTHING


def test_a_refusal_of_the_driver_has_its_name(library: Library) -> None:
    with pytest.raises(SnapshotError, match="cuDeviceGet failed: CUDA_ERROR_OTHER"):
        Cuda(1, Driver(library.path))
    with pytest.raises(SnapshotError, match="There is no CUDA driver here"):
        Driver("libcuda-that-is-not-there.so.1")
