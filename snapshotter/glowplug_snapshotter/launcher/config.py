"""What the launcher is told, in the environment variable GLOWPLUG_LAUNCH (JSON, no secrets)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

VARIABLE = "GLOWPLUG_LAUNCH"
SECRET_PREFIXES = ("AWS_", "GOOGLE_", "AZURE_", "GLOWPLUG_STORE_", "HF_TOKEN", "HUGGING_FACE_HUB")
NEEDED = {"process": ("from", "kind"), "sidecar": ("socket",), "none": ()}  # by restore.mode


class ConfigError(Exception):
    """The configuration cannot be used; the message names the field."""


@dataclass(frozen=True)
class CompileCache:
    """The engine's compile cache: for what it must have been compiled, and where it goes."""

    key: dict[str, str]
    directory: str


@dataclass(frozen=True)
class Restore:
    """How the model comes into `model_dir`."""

    mode: str
    url: str
    kind: str
    digest: str | None
    endpoint: str | None
    cache: str | None  # the node's cache of the store
    socket: str  # of the sidecar
    unlink_after_load: bool
    compile_cache: CompileCache | None = None


@dataclass(frozen=True)
class Config:
    """One engine, its model and its ports. Timeouts in seconds."""

    model: str
    port: int
    launcher_port: int
    health_path: str
    metrics_path: str
    inflight_metrics: tuple[str, ...]
    command: tuple[str, ...]
    model_dir: str
    restore: Restore
    start_timeout: float
    hang_timeout: float
    drain_timeout: float


def from_environment(environ: dict[str, str]) -> Config:
    """Read GLOWPLUG_LAUNCH; raises ConfigError."""
    text = environ.get(VARIABLE)
    if not text:
        raise ConfigError(f"{VARIABLE} is not set: the operator sets it in the Pods that it makes")
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{VARIABLE} is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ConfigError(f"{VARIABLE} is not a JSON object")
    return Config(
        model=_field(body, "model", str),
        port=_field(body, "port", int),
        launcher_port=_field(body, "launcherPort", int),
        health_path=_field(body, "healthPath", str, "/health"),
        metrics_path=_field(body, "metricsPath", str, "/metrics"),
        inflight_metrics=tuple(_field(body, "inflightMetrics", list, [])),
        command=_command(body),
        model_dir=_field(body, "modelDir", str),
        restore=_restore(_field(body, "restore", dict)),
        start_timeout=float(_field(body, "startTimeout", (int, float), 600)),
        hang_timeout=float(_field(body, "hangTimeout", (int, float), 60)),
        drain_timeout=float(_field(body, "drainTimeout", (int, float), 300)),
    )


def engine_environment(environ: dict[str, str]) -> dict[str, str]:
    """Return the environment without what only the restore may know."""
    return {
        name: value
        for name, value in environ.items()
        if name != VARIABLE and not name.startswith(SECRET_PREFIXES)
    }


def restore_environment(environ: dict[str, str]) -> dict[str, str]:
    """Return the environment of the restore process, which needs the credentials."""
    return {name: value for name, value in environ.items() if name != VARIABLE}


def _restore(body: dict[str, Any]) -> Restore:
    mode = _field(body, "mode", str)
    if mode not in NEEDED:
        raise ConfigError(f"{VARIABLE}: restore.mode is {mode!r}, expected one of {list(NEEDED)}")
    for name in NEEDED[mode]:
        if not body.get(name):
            raise ConfigError(f"{VARIABLE}: restore.{name} is missing")
    return Restore(
        mode=mode,
        url=body.get("from") or "",
        kind=body.get("kind") or "",
        digest=body.get("digest"),
        endpoint=body.get("endpoint"),
        cache=body.get("cache"),
        socket=body.get("socket") or "",
        unlink_after_load=bool(body.get("unlinkAfterLoad", False)),
        compile_cache=_compile_cache(body.get("compileCache")),
    )


def _compile_cache(body: Any) -> CompileCache | None:
    """Read where it goes and its key, whose parts the snapshotter checks."""
    if body is None:
        return None
    where = f"{VARIABLE}: restore.compileCache"
    if not isinstance(body, dict) or not isinstance(body.get("dir"), str) or not body["dir"]:
        raise ConfigError(f"{where}.dir is missing")
    key = body.get("key")
    if not isinstance(key, dict) or not all(isinstance(value, str) for value in key.values()):
        raise ConfigError(f"{where}.key must hold words by name")
    return CompileCache(key, body["dir"])


def _command(body: dict[str, Any]) -> tuple[str, ...]:
    command = _field(body, "command", list)
    if not command or not all(isinstance(word, str) for word in command):
        raise ConfigError(f"{VARIABLE}: command must be a list of words with at least one")
    return tuple(command)


def _field(body: dict[str, Any], name: str, kind: Any, default: Any = None) -> Any:
    value = body.get(name, default)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{VARIABLE}: {name} is {value!r}")
    return value
