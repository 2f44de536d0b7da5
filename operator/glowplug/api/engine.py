"""Engine and GPU: the part of a ModelDeployment that says what runs a model, and on what."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from glowplug.api import meta
from glowplug.api.base import Part, Rule
from glowplug.api.fields import Amount, Anything, DNSSubdomain, HTTPPath, Items, Line, quantity

EngineName = Literal["vllm", "sglang", "trtllm", "tgi", "triton", "llamacpp", "custom"]
DialectName = Literal["vllm", "sglang", "trtllm", "tgi", "triton", "triton-trtllm", "llamacpp"]
Restore = Literal["Process", "Sidecar", "Init"]

Amounts = Annotated[dict[str, Amount], Field(max_length=16)]


class EnvVar(Part):
    """An environment variable of the engine, as Kubernetes defines it."""

    name: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
    ] = Field(description="Name of the variable.")
    value: Annotated[str, Field(max_length=32768)] | None = Field(
        None, description="Its value. Default: empty."
    )
    value_from: Anything | None = Field(
        None, description="Where its value comes from, as in a Pod (secretKeyRef, fieldRef, ...)."
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            message="env: value and valueFrom exclude each other: set one of them",
            cel="!(has(self.value) && has(self.valueFrom))",
            holds=lambda self: self.value is None or self.value_from is None,
            field="valueFrom",
        ),
    )


class Resources(Part):
    """CPU, memory and the like of the engine's container; GPUs are asked for in spec.gpu."""

    requests: Amounts = Field(default_factory=dict, description="What a node must have free.")
    limits: Amounts = Field(default_factory=dict, description="What the engine may use at most.")


class Engine(Part):
    """The inference engine that serves the model."""

    type: EngineName = Field(
        "vllm", description="Which engine: its command, ports and metrics come from a table."
    )
    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^\S+$")] | None = Field(
        None, description="Container image. Default: the engine table's."
    )
    command: Annotated[Items[Line], Field(max_length=64)] = Field(
        (),
        description=(
            "Command instead of the engine table's. {model_dir}, {port} and {served_name} are "
            "substituted here and in args."
        ),
    )
    args: Annotated[Items[Line], Field(max_length=256)] = Field(
        (), description="Arguments added to the command."
    )
    env: Annotated[
        Items[EnvVar],
        Field(
            max_length=256,
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        ),
    ] = Field((), description="Environment variables of the engine.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Port that the engine listens on. Default: the engine table's."
    )
    health_path: HTTPPath | None = Field(
        None, description="Path that answers 200 once the model is loaded. Default: the table's."
    )
    metrics_path: HTTPPath | None = Field(
        None, description="Path of the engine's Prometheus metrics. Default: the table's."
    )
    metrics: DialectName | None = Field(
        None,
        description=(
            "Whose metric names the engine speaks. Default: those of its type; a custom engine "
            "without it is scaled by the gateways' demand only."
        ),
    )
    restore: Restore | None = Field(
        None,
        description=(
            "How weights get in: Process (the image carries glowplug-snapshotter), Sidecar (a "
            "second container), Init (an init container, for images without Python). Default: "
            "the engine table's."
        ),
    )
    resources: Resources = Field(
        default_factory=Resources, description="Requests and limits beside the GPUs."
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            message="engine.command and engine.image are required when engine.type is custom",
            cel=(
                "!has(self.type) || self.type != 'custom' ||"
                " (has(self.image) && has(self.command) && size(self.command) > 0)"
            ),
            holds=lambda self: self.type != "custom" or bool(self.command and self.image),
            field="command",
        ),
        Rule(
            message=f"engine.port must not be {meta.LAUNCHER_PORT}: the launcher listens there",
            cel=f"!has(self.port) || self.port != {meta.LAUNCHER_PORT}",
            holds=lambda self: self.port != meta.LAUNCHER_PORT,
            field="port",
        ),
        Rule(
            message="engine.env: every name may occur once",
            cel=None,  # by the list's map key
            holds=lambda self: len({e.name for e in self.env}) == len(self.env),
            field="env",
        ),
    )


class GPU(Part):
    """The accelerator that one replica needs."""

    resource: Annotated[
        str,
        Field(
            min_length=3,
            max_length=128,
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?$",
        ),
    ] = Field("nvidia.com/gpu", description="Extended resource to ask for; MIG names pass.")
    count: Annotated[int, Field(ge=0, le=16)] = Field(
        1, description="GPUs per replica; more than 1 sets tensor parallelism, 0 needs none."
    )
    memory: Annotated[int, quantity("1Mi", "16Ti")] | None = Field(
        None,
        description="GPU memory that the engine needs, for example 16Gi. Not checked yet.",
    )
    pool: DNSSubdomain | None = Field(
        None, description="GPUPool to run in. Default: the pool marked as default, if any."
    )
    sharing: Literal["Exclusive"] = Field(
        "Exclusive", description="Exclusive: the replica has its GPUs for itself."
    )
