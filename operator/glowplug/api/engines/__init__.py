"""The engine table: how each engine is started, probed and measured. Data in TOML, read once."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from glowplug.api import meta
from glowplug.api.deployment import ModelDeployment
from glowplug.api.engine import EnvVar, Resources, Restore


@dataclass(frozen=True, slots=True)
class EngineType:
    """A row of the engine table."""

    name: str
    image: str | None
    command: tuple[str, ...]
    tensor_parallel: tuple[str, ...]  # added when a replica has more than one GPU; {count}
    port: int
    health_path: str
    metrics_path: str
    dialect: str | None
    python: bool  # the image has python3, so the launcher can be PID 1
    snapshotter: bool  # the image carries glowplug-snapshotter
    restore: Restore
    paths: tuple[str, ...]  # what the gateway lets through beside the OpenAI paths
    compile_caches: Mapping[str, str]  # variable -> folder, below the cache's own directory


@dataclass(frozen=True, slots=True)
class Dialect:
    """Prometheus series of an engine; None or empty where it has none."""

    waiting: str | None
    running: str | None
    kv_usage: tuple[str, ...]  # alternatives, tried in order


@dataclass(frozen=True, slots=True)
class ResolvedEngine:
    """The engine of one ModelDeployment, with nothing left open."""

    type: EngineType
    image: str
    command: tuple[str, ...]  # arguments included, placeholders filled in
    port: int
    health_path: str
    metrics_path: str
    metrics: str | None
    restore: Restore
    env: tuple[EnvVar, ...]
    resources: Resources

    @property
    def launcher(self) -> bool:
        """Whether the launcher is PID 1 of the engine's container."""
        return self.restore != "Init"


def engine_type(name: str) -> EngineType:
    """The row of this engine; KeyError for a name that the CRD does not allow."""
    return _engine_types()[name]


def dialect(name: str) -> Dialect:
    """The series of this dialect; KeyError for a name that the CRD does not allow."""
    return _dialects()[name]


def dialects() -> tuple[str, ...]:
    """The names of all dialects."""
    return tuple(_dialects())


def resolve_engine(deployment: ModelDeployment) -> ResolvedEngine:
    """Fill what the user left out from the engine table, and the placeholders of the command.

    Takes the whole object, because the served name falls back to metadata.name.
    """
    engine, gpus = deployment.spec.engine, deployment.spec.gpu.count
    row = engine_type(engine.type)
    port = engine.port or row.port
    parallel = row.tensor_parallel if gpus > 1 and not engine.command else ()
    values = {
        "{model_dir}": meta.MODEL_DIR,
        "{port}": str(port),
        "{served_name}": deployment.served_name,
        "{count}": str(gpus),
    }
    command = (*(engine.command or row.command), *parallel, *engine.args)
    return ResolvedEngine(
        type=row,
        image=engine.image or row.image or "",
        command=tuple(_fill(word, values) for word in command),
        port=port,
        health_path=engine.health_path or row.health_path,
        metrics_path=engine.metrics_path or row.metrics_path,
        metrics=engine.metrics or row.dialect,
        restore=engine.restore or row.restore,
        env=engine.env,
        resources=engine.resources,
    )


def _fill(word: str, values: dict[str, str]) -> str:
    """Not str.format: arguments may be JSON."""
    for placeholder, value in values.items():
        word = word.replace(placeholder, value)
    return word


@cache
def _engine_types() -> dict[str, EngineType]:
    rows = {name: data for name, data in _tables().items() if name != "dialects"}
    return {
        name: EngineType(
            name=name,
            image=data.get("image"),
            command=tuple(data["command"]),
            tensor_parallel=tuple(data["tensor_parallel"]),
            port=data["port"],
            health_path=data["health_path"],
            metrics_path=data["metrics_path"],
            dialect=data.get("dialect"),
            python=data["python"],
            snapshotter=data["snapshotter"],
            restore=data["restore"],
            paths=tuple(data["paths"]),
            compile_caches=data.get("compile_caches", {}),
        )
        for name, data in rows.items()
    }


@cache
def _dialects() -> dict[str, Dialect]:
    return {
        name: Dialect(data.get("waiting"), data.get("running"), tuple(data.get("kv_usage", ())))
        for name, data in _tables()["dialects"].items()
    }


@cache
def _tables() -> dict[str, dict[str, Any]]:
    folder = resources.files(__package__)
    files = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    return {file.name.removesuffix(".toml"): tomllib.loads(file.read_text()) for file in files}
