"""What users write: every kind, its rules, its CRD, and the engine table; imports nothing else."""

from glowplug.api import meta
from glowplug.api.base import Metadata, Object
from glowplug.api.conditions import condition, set_condition, timestamp
from glowplug.api.deployment import (
    GatewayPolicy,
    Model,
    ModelDeployment,
    ModelDeploymentSpec,
    SnapshotUse,
    Update,
)
from glowplug.api.engine import GPU, Engine, EnvVar, Resources
from glowplug.api.engines import (
    Dialect,
    EngineType,
    ResolvedEngine,
    dialect,
    dialects,
    engine_type,
    resolve_engine,
)
from glowplug.api.parsing import InvalidObject, parse
from glowplug.api.pool import GPUPool, GPUPoolSpec, Rung
from glowplug.api.replica import Replica, replicas_of
from glowplug.api.scaling import SLO, Scaling, Warmth
from glowplug.api.schedule import Schedule, Spell
from glowplug.api.shared import SecretRef, Toleration
from glowplug.api.snapshot import Destination, ModelSnapshot, ModelSnapshotSpec
from glowplug.api.stages import STAGES, UNATTRIBUTED

__all__ = [
    "GPU",
    "SLO",
    "STAGES",
    "UNATTRIBUTED",
    "Destination",
    "Dialect",
    "Engine",
    "EngineType",
    "EnvVar",
    "GPUPool",
    "GPUPoolSpec",
    "GatewayPolicy",
    "InvalidObject",
    "Metadata",
    "Model",
    "ModelDeployment",
    "ModelDeploymentSpec",
    "ModelSnapshot",
    "ModelSnapshotSpec",
    "Object",
    "Replica",
    "ResolvedEngine",
    "Resources",
    "Rung",
    "Scaling",
    "Schedule",
    "SecretRef",
    "SnapshotUse",
    "Spell",
    "Toleration",
    "Update",
    "Warmth",
    "condition",
    "dialect",
    "dialects",
    "engine_type",
    "meta",
    "parse",
    "replicas_of",
    "resolve_engine",
    "set_condition",
    "timestamp",
]
