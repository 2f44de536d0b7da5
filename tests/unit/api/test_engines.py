"""The engine table, and how a ModelDeployment's engine is filled from it."""

import re
from pathlib import Path
from typing import get_args

import pytest

from glowplug.api import (
    ModelDeployment,
    ResolvedEngine,
    dialect,
    dialects,
    engine_type,
    parse,
    resolve_engine,
)
from glowplug.api.engine import DialectName, EngineName


def resolve(engine: dict, gpus: int = 1, served_name: str | None = None) -> ResolvedEngine:
    model = {"source": "s3://models/a"} | ({"servedName": served_name} if served_name else {})
    spec = {"model": model, "engine": engine, "gpu": {"count": gpus}}
    return resolve_engine(parse(ModelDeployment, {"metadata": {"name": "chat"}, "spec": spec}))


def test_the_table_and_the_kinds_know_the_same_names():
    assert [engine_type(name).name for name in get_args(EngineName)] == list(get_args(EngineName))
    assert set(dialects()) == set(get_args(DialectName))


@pytest.mark.parametrize("name", get_args(EngineName))
def test_every_row_stands_on_its_own(name):
    row = engine_type(name)

    assert row.dialect is None or dialect(row.dialect).waiting
    assert row.python or row.restore == "Init"
    assert row.snapshotter or row.restore != "Process"
    assert all(path.startswith("/") for path in (row.health_path, row.metrics_path, *row.paths))
    assert name == "custom" or (row.image and row.command)


def test_a_known_engine_needs_nothing_but_its_type():
    engine = resolve({"type": "vllm"})

    assert engine.command == (
        *("vllm", "serve", "/models/model", "--served-model-name", "chat"),
        *("--host", "0.0.0.0", "--port", "8000"),
    )
    assert (engine.port, engine.health_path, engine.metrics) == (8000, "/health", "vllm")
    assert engine.image.startswith("docker.io/vllm/vllm-openai:")
    assert engine.restore == "Sidecar"
    assert engine.launcher


def test_several_gpus_set_tensor_parallelism_before_the_users_arguments():
    engine = resolve({"type": "sglang", "args": ["--log-level", "error"], "port": 1234}, gpus=4)

    assert engine.command[-4:] == ("--tp-size", "4", "--log-level", "error")
    assert engine.command[engine.command.index("--port") + 1] == "1234"


def test_a_command_of_ones_own_is_left_as_it_is_but_for_placeholders():
    command = ["serve", "{model_dir}", "--as={served_name}", '--json={"a": {}}', "{port}"]

    engine = resolve(
        {"type": "custom", "image": "x:1", "command": command, "port": 9000},
        gpus=2,
        served_name="a/b",
    )

    assert engine.command == ("serve", "/models/model", "--as=a/b", '--json={"a": {}}', "9000")
    assert engine.metrics is None
    assert engine.restore == "Process"


def test_an_engine_without_python_has_no_launcher():
    engine = resolve({"type": "llamacpp", "args": ["--ctx-size", "4096"]})

    assert not engine.launcher
    assert engine.command[:2] == ("/bin/sh", "-c")
    assert engine.command[-2:] == ("--ctx-size", "4096")


def test_the_user_may_override_the_row():
    engine = resolve({"type": "triton", "metrics": "triton-trtllm", "restore": "Process"})

    assert dialect(engine.metrics or "").running == (
        'nv_trt_llm_request_metrics{request_type="scheduled"}'
    )
    assert engine.restore == "Process"


def test_the_page_on_snapshots_lists_where_engines_keep_compile_caches():
    page = Path(__file__).resolve().parents[3].joinpath("docs", "snapshots.md").read_text()
    rows = re.findall(r"^\| ([a-z, ]+) \| `([A-Z_]+)` \| `(\w+)` \|$", page, re.MULTILINE)
    told = {(name, *row[1:]) for row in rows for name in row[0].split(", ")}
    names = get_args(EngineName)
    kept = {(n, *item) for n in names for item in engine_type(n).compile_caches.items()}

    assert told == kept != set()
