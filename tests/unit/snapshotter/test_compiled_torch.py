"""A real compile cache of torch: captured, restored elsewhere, and found good by torch itself.

Opt-in, since torch is large: set GLOWPLUG_TORCH to a Python that has it, and have a C++ compiler.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from .compile_caches import KEY, captured, placed, shelf

PYTHON = os.environ.get("GLOWPLUG_TORCH") or (sys.executable if find_spec("torch") else None)
ENGINE = """
import json, torch
from torch._dynamo.utils import counters

@torch.compile
def layer(x, w):
    return torch.nn.functional.gelu(x @ w).softmax(-1) + x.sum()

torch.manual_seed(0)
y = layer(torch.randn(64, 64), torch.randn(64, 64))
found = counters["inductor"]
print(json.dumps([found["fxgraph_cache_hit"], found["fxgraph_cache_miss"], y.tolist()]))
"""
__all__ = ["shelf"]


def engine(cache: Path) -> tuple[int, int, list]:
    env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    run = subprocess.run([PYTHON, "-c", ENGINE], env=env, capture_output=True, check=True)
    hits, misses, result = json.loads(run.stdout.splitlines()[-1])
    return hits, misses, result


@pytest.mark.timeout(1200)
@pytest.mark.skipif(PYTHON is None, reason="torch is not installed: set GLOWPLUG_TORCH")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, g++")
def test_torch_finds_what_it_compiled_before(shelf: tuple[Path, str], tmp_path: Path) -> None:
    hits, misses, result = engine(tmp_path / "first")
    assert (hits, misses) == (0, 1)
    told = captured(shelf, tmp_path / "first")
    shutil.rmtree(tmp_path / "first")  # compiled code may not lean on the place where it was made
    found = placed(shelf, tmp_path / "second", KEY)
    assert found["used"] is True, found
    assert found["bytes"] == told["bytes"]
    assert engine(tmp_path / "second") == (1, 0, result)
