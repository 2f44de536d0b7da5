"""Taking snapshots: the ModelSnapshot of a model, the Job that takes it, and what the Job said.

The Job's name is made from what it copies where, so a killed operator finds its own Job again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from glowplug.act.conditions import Verdict
from glowplug.act.containers import confined
from glowplug.act.refs import Ref
from glowplug.act.troubles import error_event, trouble_of
from glowplug.act.weights import Store
from glowplug.api import ModelDeployment, ModelSnapshot, meta
from glowplug.kube import Json, PodRecord

COMPONENT_SNAPSHOT = "snapshot"
LABEL_SNAPSHOT = f"{meta.GROUP}/snapshot"
STORE_ENV_PREFIX = "GLOWPLUG_STORE_"
RETRY_AFTER_S = 300.0
"""A Job that has failed is deleted, and so tried anew, after this time."""
_TRIES = 3
_KEEP_DONE_S = 3600


@dataclass(frozen=True, slots=True)
class Taken:
    """The result of a finished take."""

    digest: str
    bytes: int
    files: int
    manifest: str


def snapshot_name(deployment: ModelDeployment) -> str:
    """The name of the snapshot that is taken for this model's source."""
    model = deployment.spec.model
    made_of = hashlib.sha256(f"{model.source}\0{model.endpoint or ''}".encode()).hexdigest()[:8]
    return f"{deployment.metadata.name[:39].rstrip('-')}-{made_of}"


def snapshot_body(deployment: ModelDeployment, owner: Ref) -> Json:
    """A ModelSnapshot of the model's source, in the operator's store."""
    model = deployment.spec.model
    spec: Json = {"source": model.source}
    if model.endpoint:
        spec["endpoint"] = model.endpoint
    if model.secret_ref:
        spec["secretRef"] = {"name": model.secret_ref.name}
    return {
        "apiVersion": meta.API_VERSION,
        "kind": "ModelSnapshot",
        "metadata": {
            "name": snapshot_name(deployment),
            "namespace": owner.namespace,
            "labels": {
                meta.LABEL_MANAGED_BY: meta.MANAGER,
                meta.LABEL_MODEL: owner.name,
            },
            "ownerReferences": [owner.owner()],
        },
        "spec": spec,
    }


def job_name(snapshot: ModelSnapshot, target: Store) -> str:
    """The name of the Job that takes exactly this."""
    spec = snapshot.spec.model_dump(mode="json")
    made_of = orjson.dumps(
        [spec, target.url, target.endpoint, snapshot.metadata.uid], option=orjson.OPT_SORT_KEYS
    )
    return f"{snapshot.metadata.name}-{hashlib.sha256(made_of).hexdigest()[:8]}"


def job_body(snapshot: ModelSnapshot, target: Store, owner: Ref, image: str) -> Json:
    """A Job that runs `glowplug-snapshotter take` and leaves its result in the Pod's status."""
    spec = snapshot.spec
    args = ["take", "--source", spec.source, "--to", target.url]
    if spec.endpoint:
        args += ["--source-endpoint", spec.endpoint]
    if target.endpoint:
        args += ["--endpoint", target.endpoint]
    args += ["--termination-log", "/dev/termination-log"]
    labels = {
        meta.LABEL_MANAGED_BY: meta.MANAGER,
        meta.LABEL_COMPONENT: COMPONENT_SNAPSHOT,
        LABEL_SNAPSHOT: owner.name,
    }
    container = {
        "name": COMPONENT_SNAPSHOT,
        "image": image,
        "command": ["glowplug-snapshotter"],
        "args": args,
        "envFrom": _credentials(snapshot, target),
        "securityContext": confined() | {"readOnlyRootFilesystem": True},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
    }
    return {
        "metadata": {
            "name": job_name(snapshot, target),
            "namespace": owner.namespace,
            "labels": labels,
            "ownerReferences": [owner.owner()],
        },
        "spec": {
            "backoffLimit": _TRIES - 1,
            "ttlSecondsAfterFinished": _KEEP_DONE_S,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "enableServiceLinks": False,
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            },
        },
    }


def _credentials(snapshot: ModelSnapshot, target: Store) -> list[Json]:
    source = snapshot.spec.secret_ref.name if snapshot.spec.secret_ref else None
    found: list[Json] = [{"secretRef": {"name": source}}] if source else []
    if target.secret and target.secret != source:
        found.append({"prefix": STORE_ENV_PREFIX, "secretRef": {"name": target.secret}})
    return found


def taken_from(pods: tuple[PodRecord, ...]) -> Taken | None:
    """The result that a succeeded Pod of the Job left, None before."""
    for pod in pods:
        for container in pod.containers:
            result = _result(container.message) if pod.phase == "Succeeded" else None
            if result is not None:
                return result
    return None


def _result(message: str | None) -> Taken | None:
    for line in reversed((message or "").strip().splitlines()):
        try:
            event = json.loads(line)
            if event.get("event") == "result":
                return Taken(
                    digest=str(event["digest"]),
                    bytes=int(event["bytes"]),
                    files=int(event["files"]),
                    manifest=str(event["manifest"]),
                )
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return None


def progress_verdict(pods: tuple[PodRecord, ...], job: Json | None, namespace: str) -> Verdict:
    """Ready of a snapshot that is not taken yet: what its Job is doing, or why it failed."""
    newest = max(pods, key=lambda pod: (pod.created, pod.name), default=None)
    failed = _failed(newest) if newest is not None else None
    if failed is not None:
        return Verdict("Ready", "False", *failed)
    trouble = trouble_of(newest) if newest is not None else None
    if trouble is not None:
        advice = secret_advice(trouble.missing_secret, namespace) if trouble.missing_secret else ""
        return Verdict("Ready", "False", trouble.reason, f"{trouble.sentence} {advice}".rstrip())
    if newest is not None and newest.unschedulable:
        told = f"Pod {newest.name} has no node: {newest.unschedulable}"
        return Verdict("Ready", "False", "Unschedulable", told)
    if job is not None and job_state(job) == "Failed":
        return Verdict("Ready", "False", "TakeFailed", "The Job that takes it failed.")
    return Verdict("Ready", "False", "Taking", "The weights are being copied to the store.")


def _failed(pod: PodRecord) -> tuple[str, str] | None:
    for container in pod.containers:
        error = error_event(container.message)
        if error is not None:
            return error
    if pod.phase == "Failed":
        codes = [str(c.exit_code) for c in pod.containers if c.exit_code is not None]
        told = next((c.message for c in pod.containers if c.message), None)
        ended = f"Pod {pod.name} failed with exit code {', '.join(codes) or 'unknown'}"
        return "TakeFailed", f"{ended}: {' '.join(told.split())[-400:]}" if told else f"{ended}."
    return None


def job_state(job: Json) -> Literal["Running", "Complete", "Failed"]:
    """Where a Job stands."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            kind: Literal["Complete", "Failed"] = condition["type"]
            return kind
    return "Running"


def secret_advice(name: str, namespace: str) -> str:
    """The command that creates the Secret that is missing."""
    return (
        f"Create it: kubectl -n {namespace} create secret generic {name} "
        "--from-literal=AWS_ACCESS_KEY_ID=... --from-literal=AWS_SECRET_ACCESS_KEY=..."
    )


def status_of(taken: Taken) -> dict[str, Any]:
    """The lasting part of a taken snapshot's status."""
    return {
        "digest": taken.digest,
        "manifest": taken.manifest,
        "bytes": taken.bytes,
        "files": taken.files,
    }
