"""The containers and volumes of a replica's Pod; pure.

The engine's PID 1 is the launcher, except in images without Python. Weights lie in a tmpfs volume
that all containers of the Pod see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from glowplug.act.weights import Memory, Weights, memory_of
from glowplug.api import ModelDeployment, ResolvedEngine, dialect, meta
from glowplug.kube import Json

MODELS_DIR = meta.MODEL_DIR.rsplit("/", 1)[0]
RESTORE_SOCKET = f"{MODELS_DIR}/.restore.sock"
START_TIMEOUT_S = 1800
"""An engine that has not answered for this long after its start hangs."""
HANG_TIMEOUT_S = 60
"""An engine that has served and is not healthy for this long hangs: as long as kubelet is given
where there is no launcher."""
_BLIND_DRAIN_S = 30
_NONROOT = 65532


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a replica may run: a pool, one rung of its ladder, and what they ask of nodes."""

    pool: str | None = None
    rung: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a replica's Pod is made from, but its slot."""

    deployment: ModelDeployment
    engine: ResolvedEngine
    revision: str
    weights: Weights
    placement: Placement
    snapshotter_image: str

    @property
    def memory(self) -> Memory:
        """Memory of the containers."""
        return memory_of(self.engine, self.weights)


def engine_container(recipe: Recipe) -> Json:
    """The engine, under the launcher where its image has Python."""
    deployment, engine, weights = recipe.deployment, recipe.engine, recipe.weights
    ours = {
        meta.ENV_MODEL_DIR: meta.MODEL_DIR,
        meta.ENV_PORT: str(engine.port),
        meta.ENV_SERVED_NAME: deployment.served_name,
    }
    command = list(engine.command)
    ports = [{"name": "http", "containerPort": engine.port}]
    mounts = [_models_mount(weights)]
    if engine.launcher:
        ours[meta.ENV_LAUNCH] = orjson.dumps(_launch(recipe)).decode()
        command = ["python3", meta.LAUNCHER_PATH, "run"]
        ports.append({"name": "launcher", "containerPort": meta.LAUNCHER_PORT})
        mounts.append(
            # By subPath, so that a newer launcher never replaces the file under a running one.
            {
                "name": "launcher",
                "mountPath": meta.LAUNCHER_PATH,
                "subPath": meta.LAUNCHER_PATH.rsplit("/", 1)[1],
                "readOnly": True,
            }
        )
    if deployment.spec.gpu.count > 1:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    container: Json = {
        "name": meta.CONTAINER_ENGINE,
        "image": engine.image,
        "command": command,
        "env": [{"name": name, "value": value} for name, value in ours.items()]
        + [
            var.model_dump(mode="json", by_alias=True, exclude_none=True)
            for var in engine.env
            if var.name not in ours
        ],
        "ports": ports,
        "volumeMounts": mounts,
        "resources": _resources(recipe),
        "lifecycle": {"preStop": _pre_stop(recipe)},
        "securityContext": confined(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if engine.launcher and engine.restore == "Process" and weights.secret:
        container["envFrom"] = [{"secretRef": {"name": weights.secret}}]
    return container | _probes(engine)


def _launch(recipe: Recipe) -> dict[str, Any]:
    engine, weights = recipe.engine, recipe.weights
    series = dialect(engine.metrics) if engine.metrics else None
    mode = "none" if weights.claim is not None else engine.restore.lower()
    return {
        "model": recipe.deployment.key,
        "port": engine.port,
        "launcherPort": meta.LAUNCHER_PORT,
        "healthPath": engine.health_path,
        "metricsPath": engine.metrics_path,
        "inflightMetrics": [s for s in (series.running, series.waiting) if s] if series else [],
        "command": list(engine.command),
        "modelDir": meta.MODEL_DIR,
        "restore": {
            "mode": mode,
            "from": weights.url,
            "kind": weights.kind,
            "digest": weights.digest,
            "endpoint": weights.endpoint,
            "cache": weights.cache,
            "socket": RESTORE_SOCKET if mode == "sidecar" else None,
            "unlinkAfterLoad": True,
        },
        "startTimeout": START_TIMEOUT_S,
        "hangTimeout": HANG_TIMEOUT_S,
        "drainTimeout": recipe.deployment.spec.update.drain_timeout,
    }


def restore_container(recipe: Recipe) -> Json:
    """The restore in a container of its own: beside the engine, or before it."""
    weights, limit = recipe.weights, recipe.memory.restore_limit
    beside = recipe.engine.restore == "Sidecar"
    args = ["restore", "--from", weights.url, "--kind", weights.kind, "--to", meta.MODEL_DIR]
    if weights.digest:
        args += ["--digest", weights.digest]
    if weights.endpoint:
        args += ["--endpoint", weights.endpoint]
    if weights.cache:
        args += ["--cache", weights.cache]
    if beside:
        args += ["--socket", RESTORE_SOCKET]
    args += ["--termination-log", "/dev/termination-log"]
    container: Json = {
        "name": meta.CONTAINER_RESTORE,
        "image": recipe.snapshotter_image,
        "command": ["glowplug-snapshotter"],
        "args": args,
        "volumeMounts": [_models_mount(weights)],
        "securityContext": confined()
        | {"runAsNonRoot": True, "runAsUser": _NONROOT, "readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if limit is not None:
        amount = {"memory": str(limit)}
        container["resources"] = {"requests": amount, "limits": amount}
    if weights.secret:
        container["envFrom"] = [{"secretRef": {"name": weights.secret}}]
    return container


def volumes(recipe: Recipe) -> list[Json]:
    """The weights' tmpfs or claim, the launcher, and shared memory where ranks need it."""
    weights = recipe.weights
    made: list[Json] = []
    if weights.claim is not None:
        claim = {"claimName": weights.claim[0], "readOnly": True}
        made.append({"name": "models", "persistentVolumeClaim": claim})
    else:
        tmpfs: Json = {"medium": "Memory"}
        if weights.size is not None:
            tmpfs["sizeLimit"] = str(weights.size + max(weights.size // 50, 64 * 2**20))
        made.append({"name": "models", "emptyDir": tmpfs})
    if recipe.engine.launcher:
        made.append({"name": "launcher", "configMap": {"name": meta.LAUNCHER_CONFIGMAP}})
    if recipe.deployment.spec.gpu.count > 1:
        # NCCL's rings between the ranks do not fit into the runtime's 64 MiB.
        made.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    return made


def _models_mount(weights: Weights) -> Json:
    if weights.claim is None:
        return {"name": "models", "mountPath": MODELS_DIR}
    mount: Json = {"name": "models", "mountPath": meta.MODEL_DIR, "readOnly": True}
    return mount | ({"subPath": weights.claim[1]} if weights.claim[1] else {})


def _resources(recipe: Recipe) -> Json:
    engine, memory, gpu = recipe.engine, recipe.memory, recipe.deployment.spec.gpu
    requests = {key: str(value) for key, value in engine.resources.requests.items()}
    limits = {key: str(value) for key, value in engine.resources.limits.items()}
    if memory.engine_request is not None:
        requests["memory"] = str(memory.engine_request)
    if memory.engine_limit is not None:
        limits["memory"] = str(memory.engine_limit)
    elif "memory" in limits:
        # Unknown size of the weights: ask for what is known, and forbid nothing.
        requests.setdefault("memory", limits.pop("memory"))
    if gpu.count:
        requests[gpu.resource] = limits[gpu.resource] = str(gpu.count)
    return {"requests": requests, "limits": limits}


def _probes(engine: ResolvedEngine) -> Json:
    """The launcher answers at once, also while the engine loads; an engine alone only then."""
    if engine.launcher:
        return {
            "startupProbe": _probe("/healthz", meta.LAUNCHER_PORT, 1, 60),
            "livenessProbe": _probe("/healthz", meta.LAUNCHER_PORT, 10, 6),
            "readinessProbe": _probe("/readyz", meta.LAUNCHER_PORT, 1, 3),
        }
    return {
        "startupProbe": _probe(engine.health_path, engine.port, 1, START_TIMEOUT_S),
        "livenessProbe": _probe(engine.health_path, engine.port, 10, 6),
        "readinessProbe": _probe(engine.health_path, engine.port, 1, 3),
    }


def _probe(path: str, port: int, period: int, failures: int) -> Json:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": 5 if period > 5 else 2,
    }


def _pre_stop(recipe: Recipe) -> Json:
    if recipe.engine.launcher:
        return {"exec": {"command": ["python3", meta.LAUNCHER_PATH, "drain"]}}
    # Nobody in this Pod can count its requests; the operator cuts this short where it can.
    seconds = min(_BLIND_DRAIN_S, math.ceil(recipe.deployment.spec.update.drain_timeout))
    return {"sleep": {"seconds": max(1, seconds)}}


def confined() -> Json:
    """What every container can do without; user and root file system are the image's affair."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
