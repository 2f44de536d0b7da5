"""The Pod of one replica, rendered from its ModelDeployment; pure.

The name guards a slot, the labels say whose it is, and the annotations what runs in it and what it
costs.
"""

from __future__ import annotations

import hashlib
import math

import orjson

from glowplug.act.containers import Recipe, engine_container, restore_container, volumes
from glowplug.act.merge import merge_template
from glowplug.act.refs import Ref
from glowplug.api import ModelDeployment, ResolvedEngine, meta
from glowplug.kube import Json

ANNOTATION_POOL = f"{meta.GROUP}/pool"
ANNOTATION_RUNG = f"{meta.GROUP}/rung"
ANNOTATION_GPUS = f"{meta.GROUP}/gpus"
ANNOTATION_SNAPSHOT = f"{meta.GROUP}/snapshot"
"""The digest that the Pod restores through its node's cache."""

_STOP_MARGIN_S = 10


def ref_of(deployment: ModelDeployment) -> Ref:
    """The ModelDeployment as owner of what is made for it."""
    m = deployment.metadata
    return Ref("ModelDeployment", m.namespace, m.name, m.uid)


def revision_of(deployment: ModelDeployment, engine: ResolvedEngine) -> str:
    """8 hex digits over all that replicas must have in common.

    Made from what the user asked for, with the engine table filled in, not from the rendered Pod:
    a snapshot that becomes ready, a pool that changes or a new operator must not roll replicas.
    """
    spec = deployment.spec
    made_of = {
        "model": spec.model.model_dump(mode="json", exclude={"snapshot"}),
        "servedName": deployment.served_name,
        "image": engine.image,
        "command": engine.command,
        "port": engine.port,
        "paths": [engine.health_path, engine.metrics_path, engine.metrics],
        "restore": engine.restore,
        "env": [var.model_dump(mode="json", by_alias=True) for var in engine.env],
        "resources": engine.resources.model_dump(mode="json"),
        "gpu": spec.gpu.model_dump(mode="json"),
        "serviceAccountName": spec.service_account_name,
        "template": spec.template,
    }
    canonical = orjson.dumps(made_of, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()[:8]


def pod_name(model: str, revision: str, slot: int) -> str:
    """The name that guards a slot against a second Pod."""
    return f"{model}-{revision}-{slot}"


def replica_pod(recipe: Recipe, slot: int) -> Json:
    """The Pod of `slot`, with `spec.template` merged in."""
    m = recipe.deployment.metadata
    pod = {
        "metadata": {
            "name": pod_name(m.name, recipe.revision, slot),
            "namespace": m.namespace,
            "labels": {
                meta.LABEL_MODEL: m.name,
                meta.LABEL_REVISION: recipe.revision,
                meta.LABEL_SLOT: str(slot),
                meta.LABEL_STATE: meta.STATE_ACTIVE,
                meta.LABEL_MANAGED_BY: meta.MANAGER,
                meta.LABEL_COMPONENT: meta.COMPONENT_REPLICA,
            },
            "annotations": _annotations(recipe),
            "ownerReferences": [ref_of(recipe.deployment).owner()],
        },
        "spec": _pod_spec(recipe),
    }
    return merge_template(pod, recipe.deployment.spec.template)


def _annotations(recipe: Recipe) -> dict[str, str]:
    deployment, engine, placement = recipe.deployment, recipe.engine, recipe.placement
    replica = {
        "model": deployment.metadata.name,
        "process": 0,
        "port": engine.port,
        "launcherPort": meta.LAUNCHER_PORT if engine.launcher else None,
        "healthPath": engine.health_path,
        "metricsPath": engine.metrics_path,
        "metrics": engine.metrics,
    }
    annotations = {
        meta.ANNOTATION_REPLICAS: orjson.dumps([replica]).decode(),
        ANNOTATION_GPUS: str(deployment.spec.gpu.count),
    }
    if recipe.weights.cache is not None and recipe.weights.digest is not None:
        annotations[ANNOTATION_SNAPSHOT] = recipe.weights.digest
    if placement.pool is not None:
        annotations[ANNOTATION_POOL] = placement.pool
    if placement.rung is not None:
        annotations[ANNOTATION_RUNG] = placement.rung
    return annotations


def _pod_spec(recipe: Recipe) -> Json:
    deployment, placement = recipe.deployment, recipe.placement
    drain = math.ceil(deployment.spec.update.drain_timeout)
    spec: Json = {
        "containers": [engine_container(recipe)],
        "volumes": volumes(recipe),
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": drain + _STOP_MARGIN_S,
        # A Service called vllm would set VLLM_PORT, which vLLM takes for its own.
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    }
    if recipe.weights.claim is None and recipe.engine.restore == "Sidecar":
        spec["containers"].append(restore_container(recipe))
    if recipe.weights.claim is None and recipe.engine.restore == "Init":
        spec["initContainers"] = [restore_container(recipe)]
    if deployment.spec.service_account_name:
        spec["serviceAccountName"] = deployment.spec.service_account_name
    if placement.node_selector:
        spec["nodeSelector"] = dict(placement.node_selector)
    if placement.tolerations:
        spec["tolerations"] = list(placement.tolerations)
    return spec
