"""GPUPool: GPUs, who may use them, how many, and what they cost."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from glowplug.api.base import NAME_RULE, Object, Part, Rule
from glowplug.api.fields import DNSLabel, Items, Labels
from glowplug.api.shared import Toleration
from glowplug.api.status import PoolStatus


class Rung(Part):
    """One kind of capacity, with its price; rungs are tried in order."""

    name: DNSLabel = Field(description="Name of the rung, once per ladder.")
    type: Literal["reserved", "on-demand", "spot"] = Field(
        "on-demand", description="How the capacity is bought: reserved, on-demand or spot."
    )
    node_selector: Labels = Field(
        default_factory=dict, description="Labels of the nodes of this rung."
    )
    dollars_per_gpu_hour: Annotated[float, Field(ge=0, le=10_000)] = Field(
        alias="dollarsPerGPUHour", description="Price of one GPU for one hour, in dollars."
    )
    max: Annotated[int, Field(ge=0, le=100_000)] | None = Field(
        None, description="GPUs of this rung at most. Default: no limit."
    )


class GPUPoolSpec(Part):
    """Where the GPUs are and who may have them."""

    backend: Literal["static"] = Field(
        "static", description="Who makes nodes: static means that they are there already."
    )
    default: bool = Field(
        False, description="Whether models that name no pool run here; one pool at most."
    )
    node_selector: Labels = Field(
        default_factory=dict, description="Labels that a node must carry to belong here."
    )
    tolerations: Annotated[Items[Toleration], Field(max_length=32)] = Field(
        (), description="Tolerations that replicas get."
    )
    allowed_namespaces: Annotated[Items[DNSLabel], Field(max_length=1000)] = Field(
        (), description="Namespaces that may use the pool. Default: all."
    )
    budget: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None, description="GPUs that replicas of this pool may hold together. Default: no limit."
    )
    ladder: Annotated[
        Items[Rung],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = Field((), description="Kinds of capacity with their prices, the preferred one first.")
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            message="ladder: every name may occur once",
            cel=None,  # by the list's map key
            holds=lambda self: len({r.name for r in self.ladder}) == len(self.ladder),
            field="ladder",
        ),
    )


class GPUPool(Object):
    """GPUs of the cluster that models may share, with a budget and a price ladder."""

    kind: ClassVar[str] = "GPUPool"
    plural: ClassVar[str] = "gpupools"
    short_name: ClassVar[str] = "gpool"
    namespaced: ClassVar[bool] = False
    status_model: ClassVar[Any] = PoolStatus
    columns: ClassVar[tuple[tuple[str, str, str, str], ...]] = (
        ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Can it be used?"),
        ("Backend", "string", ".spec.backend", "Who makes nodes."),
        ("Default", "boolean", ".spec.default", "Whether models without a pool run here."),
        ("Used", "integer", ".status.usedGpus", "GPUs that replicas hold."),
        ("GPUs", "integer", ".status.gpus", "GPUs that the nodes offer."),
        ("Budget", "integer", ".spec.budget", "GPUs that replicas may hold."),
        ("USD/h", "number", ".status.dollarsPerHour", "What the used GPUs cost."),
        ("Age", "date", ".metadata.creationTimestamp", "Since when it exists."),
    )
    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    spec: GPUPoolSpec = Field(default_factory=GPUPoolSpec)
