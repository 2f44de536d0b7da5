"""ModelDeployment: a model, the engine that serves it, and how far it may scale."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from glowplug.api.base import NAME_RULE, Object, Part, Rule
from glowplug.api.engine import GPU, Engine
from glowplug.api.fields import (
    Anything,
    DNSSubdomain,
    Short,
    duration,
)
from glowplug.api.scaling import Scaling, Warmth
from glowplug.api.shared import SOURCE_RULES, Endpoint, SecretRef, Source
from glowplug.api.status import DeploymentStatus


class SnapshotUse(Part):
    """Whether replicas load from a snapshot, and from which."""

    policy: Literal["Auto", "Never"] | None = Field(
        None,
        description=(
            "Auto takes a snapshot at first use when the operator has a store; Never loads from "
            "the source. Default: Auto."
        ),
    )
    name: DNSSubdomain | None = Field(
        None, description="A ModelSnapshot of the same namespace to load from."
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            message="snapshot.policy and snapshot.name exclude each other: set one of them",
            cel="!(has(self.policy) && has(self.name))",
            holds=lambda self: self.policy is None or self.name is None,
            field="policy",
        ),
    )


class Model(Part):
    """What is served: where its weights are, and under which name clients ask for it."""

    source: Source = Field(
        description="Where the weights are, for example s3://models/smollm2 or hf://org/name@rev."
    )
    served_name: (
        Annotated[
            str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9][-A-Za-z0-9._:/@]*$")
        ]
        | None
    ) = Field(None, description="The model's name in requests. Default: the name of this object.")
    secret_ref: SecretRef | None = Field(
        None, description="The Secret with the credentials that read the source."
    )
    endpoint: Endpoint | None = Field(
        None, description="URL of an S3-compatible store, for example http://seaweedfs:8333."
    )
    snapshot: SnapshotUse = Field(
        default_factory=SnapshotUse, description="Whether and which snapshot replicas load from."
    )
    rules: ClassVar[tuple[Rule, ...]] = SOURCE_RULES


class GatewayPolicy(Part):
    """How the gateways hold requests while no replica can take them."""

    max_hold: Annotated[float, duration("1s", "1h")] = Field(
        "10m", validate_default=True, description="Longest hold of a streaming request."
    )
    max_hold_plain: Annotated[float, duration("1s", "1h")] = Field(
        "50s",
        validate_default=True,
        description="Longest hold of a request that does not stream, then 503 with Retry-After.",
    )
    max_held: Annotated[int, Field(ge=0, le=100_000)] = Field(
        1000, description="Requests held at once by one gateway; more get 503."
    )


class Update(Part):
    """How replicas are replaced and drained."""

    max_surge: Annotated[int, Field(ge=0, le=100)] = Field(
        1, description="Replicas above the wanted count during a rollout."
    )
    max_unavailable: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="Replicas below the wanted count during a rollout."
    )
    drain_timeout: Annotated[float, duration("0s", "24h")] = Field(
        "5m", validate_default=True, description="Longest wait for requests in flight."
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            message="update.maxSurge and update.maxUnavailable must not both be 0:"
            " no rollout could move",
            cel=(
                "(has(self.maxSurge) ? self.maxSurge : 1)"
                " + (has(self.maxUnavailable) ? self.maxUnavailable : 0) > 0"
            ),
            holds=lambda self: self.max_surge + self.max_unavailable > 0,
            field="maxSurge",
        ),
    )


class ModelDeploymentSpec(Part):
    """What the user wants; only model.source is required."""

    replicas: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        None,
        description=(
            "Pins the number of replicas (kubectl scale and HPA write it). Left out, Glowplug "
            "decides; `glowplug release NAME` removes it."
        ),
    )
    model: Model = Field(description="What is served.")
    engine: Engine = Field(default_factory=Engine, description="The inference engine.")
    gpu: GPU = Field(default_factory=GPU, description="The accelerator of each replica.")
    scaling: Scaling = Field(default_factory=Scaling, description="How far and when to scale.")
    warmth: Warmth = Field(
        default_factory=Warmth, description="How quickly a first request at zero must be served."
    )
    gateway: GatewayPolicy = Field(
        default_factory=GatewayPolicy, description="How requests are held at zero."
    )
    update: Update = Field(default_factory=Update, description="How replicas are replaced.")
    service_account_name: Short | None = Field(
        None, description="ServiceAccount of the replicas. Default: the namespace's default."
    )
    template: Anything = Field(
        default_factory=dict,
        description=(
            "Merged into the replicas' Pod: containers, initContainers, volumes and env by name, "
            "volumeMounts by mountPath, the rest replaced. Checked by a dry-run create."
        ),
    )


class ModelDeployment(Object):
    """A model that is served from zero to maxReplicas replicas, sized to its demand."""

    kind: ClassVar[str] = "ModelDeployment"
    plural: ClassVar[str] = "modeldeployments"
    short_name: ClassVar[str] = "mdep"
    status_model: ClassVar[Any] = DeploymentStatus
    scale: ClassVar[dict[str, str] | None] = {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
    columns: ClassVar[tuple[tuple[str, str, str, str], ...]] = (
        ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Can it answer?"),
        ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why (not)?"),
        ("Hot", "integer", ".status.readyReplicas", "Replicas that serve now."),
        ("Wanted", "integer", ".status.decision.desired", "Replicas that should serve."),
        ("Asleep", "integer", ".status.tiers.asleep", "Replicas that keep host memory only."),
        ("Cold s", "number", ".status.coldStart.p50", "Median seconds of a start from zero."),
        ("USD/h", "number", ".status.cost.dollarsPerHour", "What it costs now."),
        ("Age", "date", ".metadata.creationTimestamp", "Since when it exists."),
    )
    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    spec: ModelDeploymentSpec

    @property
    def served_name(self) -> str:
        """The name that clients ask for: spec.model.servedName, or the object's own."""
        return self.spec.model.served_name or self.metadata.name
