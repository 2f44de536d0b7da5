"""torch takes tensors over without a copy, and frees them; ranks share the reading.

Needs torch: .venv/bin/uv pip install torch, or run with any environment that has it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import glowplug_snapshotter
from glowplug_snapshotter.gpu import dlpack
from glowplug_snapshotter.gpu.dtypes import DTYPES

from .models import write_safetensors, write_snapshot

torch = pytest.importorskip(
    "torch", reason="needs torch, which the snapshotter does not depend on: uv pip install torch"
)
CHUNK = 4096


def raw(tensor: "torch.Tensor") -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def test_every_dtype_that_torch_has_comes_as_itself(tmp_path: Path) -> None:
    held = {name for name, known in DTYPES.items() if known.torch and hasattr(torch, known.torch)}
    assert {"BF16", "F8_E4M3", "F8_E5M2", "BOOL", "C64"} <= held
    specs = [(name, name, (3, 5, 8)) for name in sorted(held - {"BOOL"})]
    specs += [("scalar", "BF16", ()), ("nothing", "F32", (0, 4)), ("mask", "BOOL", (3,))]
    data = write_safetensors(tmp_path / "model.safetensors", specs)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3:] = data["mask"] = b"\1\0\1"
    path.write_bytes(content)
    for name, tensor in glowplug_snapshotter.load(tmp_path):
        dtype = {"scalar": "BF16", "nothing": "F32", "mask": "BOOL"}.get(name, name)
        assert tensor.dtype is getattr(torch, DTYPES[dtype].torch)
        if data[name]:
            assert raw(tensor) == data[name]
    assert {name for name, _ in glowplug_snapshotter.load(tmp_path)} == set(data)


def test_the_same_as_safetensors_itself(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    torch.manual_seed(1)
    expected = {
        "a": torch.randn(300, 70).to(torch.bfloat16),
        "b": torch.randn(64, 64).to(torch.float8_e5m2),
        "c": torch.arange(7),
        "d": torch.tensor(2.5),
    }
    safetensors.save_file(expected, tmp_path / "model.safetensors")
    loaded = dict(glowplug_snapshotter.load(tmp_path / "model.safetensors"))
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        assert raw(loaded[name]) == raw(tensor)


def test_torch_owns_the_memory_until_its_last_view_goes(tmp_path: Path) -> None:
    data = write_safetensors(tmp_path / "model.safetensors", [("a", "F32", (1000,))])
    before = len(dlpack._lent)
    [(_, tensor)] = glowplug_snapshotter.load(tmp_path)
    view = tensor[100:]
    del tensor
    assert len(dlpack._lent) == before + 1
    assert raw(view) == data["a"][400:]
    del view
    assert len(dlpack._lent) == before


def test_a_tensor_that_outlives_the_interpreter_does_no_harm(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", [("a", "F32", (1000,))])
    code = (
        "import glowplug_snapshotter, sys, torch\n"
        "kept = dict(glowplug_snapshotter.load(sys.argv[1]))\n"
        "torch.kept = kept\n"
        "module = torch.nn.Linear(1, 1); module.w = kept['a']; torch.module = module\n"
        "torch.cycle = [kept]; torch.cycle.append(torch.cycle)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")


RANK = """
import os, sys
from types import SimpleNamespace
import torch
import torch.distributed as dist
from glowplug_snapshotter import open_weights
from glowplug_snapshotter.loading import selection
from glowplug_snapshotter.vllm_loader import tensors

selection.STRIPE = 10_000
rank, world, uri, out, meeting = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
dist.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=world)
ranks = list(range(world))
group = SimpleNamespace(rank_in_group=rank, world_size=world, ranks=ranks, device_group=None)
read = 0
from glowplug_snapshotter.backends.local import LocalReader
read_into = LocalReader.read_into
def counted(self, entry, offset, view, ticket=None):
    global read
    read += len(view)
    read_into(self, entry, offset, view, ticket)
LocalReader.read_into = counted
got = {}
for name, tensor in tensors(open_weights(uri), "cpu", lambda name: name == "unused", group):
    got[name] = tensor.contiguous().view(-1).view(torch.uint8)
torch.save((got, read), out)
dist.destroy_process_group()
"""


def test_ranks_each_read_a_share_and_all_get_everything(tmp_path: Path) -> None:
    specs = [(f"t{n}", ("BF16", "F8_E4M3", "F32")[n % 3], (n * 50,)) for n in range(60)]
    specs += [("unused", "U8", (5,)), ("scalar", "F64", ())]
    data = write_safetensors(tmp_path / "m" / "model.safetensors", specs)
    uri = write_snapshot(tmp_path / "m", tmp_path / "store", chunk_size=CHUNK)
    world = 2
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(world), uri, tmp_path / f"out{rank}",
             tmp_path / "meeting"],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(world)
    ]  # fmt: skip
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    read = 0
    for rank in range(world):
        got, count = torch.load(tmp_path / f"out{rank}")
        assert list(got) == [name for name, _, _ in specs if name != "unused"]
        assert {name: tensor.numpy().tobytes() for name, tensor in got.items()} == {
            name: value for name, value in data.items() if name != "unused"
        }
        read += count
    size = sum(map(len, data.values()))
    assert read < 2 * size  # each about a half, and what tensors share of chunks
