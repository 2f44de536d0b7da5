"""Status of every kind, for the CRDs' schemas only: the operator writes plain dictionaries."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Count = Annotated[int, Field(ge=0, le=1_000_000)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Number = Annotated[float, Field(ge=0, le=1e12)]
Text = Annotated[str, Field(max_length=1024)]
Sentence = Annotated[str, Field(max_length=32768)]
Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
Seconds = Annotated[dict[str, Number], Field(max_length=32)]


class StatusPart(BaseModel):
    """Base of everything below; names are camelCase in YAML."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Condition(StatusPart):
    """One condition, as in every Kubernetes API."""

    type: Annotated[str, Field(min_length=1, max_length=316)] = Field(
        description="What is judged, for example Ready."
    )
    status: Annotated[str, Field(json_schema_extra={"enum": ["True", "False", "Unknown"]})] = Field(
        description="True, False or Unknown."
    )
    reason: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="One CamelCase word why."
    )
    message: Sentence = Field(description="A sentence why, with what to do about it.")
    last_transition_time: Time = Field(description="Since when the status is what it is.")
    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Generation of the spec that was judged."
    )


Conditions = Annotated[
    list[Condition],
    Field(
        max_length=16,
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    ),
]


class Tiers(StatusPart):
    """Replicas by what they hold."""

    hot: Count | None = Field(None, description="Replicas that serve.")
    asleep: Count | None = Field(
        None, description="Replicas that keep host memory only. None do yet."
    )
    starting: Count | None = Field(None, description="Replicas on their way to serving.")
    draining: Count | None = Field(None, description="Replicas that finish what they have.")


class DecisionStatus(StatusPart):
    """The last decision."""

    desired: Count | None = Field(None, description="Replicas that should serve.")
    asleep: Count | None = Field(None, description="Replicas that should sleep. None do yet.")
    rule: Text | None = Field(None, description="The rule that set the count, such as hold.")
    reason: Sentence | None = Field(None, description="Why, in one sentence with numbers.")
    at: Time | None = Field(None, description="When it was taken.")


class LastColdStart(StatusPart):
    """The last start from zero, as its first request saw it."""

    total: Number | None = Field(None, description="Seconds from the request to its first token.")
    stages: Seconds = Field({}, description="Seconds by stage; they add up to the total.")
    hidden: Seconds = Field({}, description="Seconds of work that overlapped other stages.")
    path: Text | None = Field(
        None, description="Start path: cold. Later also cached, standby and asleep."
    )
    pod: Text | None = Field(None, description="The Pod that was started.")
    at: Time | None = Field(None, description="When the request arrived.")


class StartPath(StatusPart):
    """Statistics of one start path."""

    samples: Count | None = Field(None, description="Starts that were measured.")
    p50: Seconds = Field({}, description="Median seconds by stage.")
    p90: Seconds = Field({}, description="90th percentile of the seconds by stage.")


class ColdStart(StatusPart):
    """How long starts from zero take."""

    last: LastColdStart | None = Field(None, description="The last one.")
    p50: Number | None = Field(None, description="Median seconds.")
    p90: Number | None = Field(None, description="90th percentile of the seconds.")
    samples: Count | None = Field(None, description="Starts that were measured.")
    paths: Annotated[dict[str, StartPath], Field(max_length=8)] = Field(
        {}, description="The same by start path and stage."
    )


class Cost(StatusPart):
    """What the model costs now."""

    dollars_per_hour: Number | None = Field(None, description="Dollars per hour of its GPUs.")
    dollars_per_1k_tokens: Number | None = Field(
        None, alias="dollarsPer1kTokens", description="Dollars per 1,000 tokens. Not measured yet."
    )
    utilization: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Share of its replicas' time spent serving. Not measured yet."
    )


class SnapshotInUse(StatusPart):
    """The snapshot that replicas load from."""

    name: Text | None = Field(None, description="Its ModelSnapshot.")
    digest: Text | None = Field(None, description="Digest over its manifest.")
    bytes: Bytes | None = Field(None, description="Its size.")
    verified: Text | None = Field(
        None, description="What loaded bytes are checked against: snapshot or source."
    )


class Memory(StatusPart):
    """How the memory limit of a replica came about."""

    limit: Bytes | None = Field(None, description="Bytes in all.")
    parts: Annotated[dict[str, Bytes], Field(max_length=16)] = Field(
        {}, description="Bytes by what they are for."
    )


class DeploymentStatus(StatusPart):
    """What is true now."""

    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Generation of the spec that this status is about."
    )
    revision: Text | None = Field(None, description="Hash of what replicas are made from.")
    replicas: Count | None = Field(None, description="Replicas that exist and are not draining.")
    ready_replicas: Count | None = Field(None, description="Replicas that serve.")
    updated_replicas: Count | None = Field(None, description="Replicas of the newest revision.")
    selector: Text | None = Field(None, description="Label selector of the replicas' Pods.")
    tiers: Tiers | None = Field(None, description="Replicas by what they hold.")
    decision: DecisionStatus | None = Field(None, description="The last decision.")
    cold_start: ColdStart | None = Field(None, description="How long starts from zero take.")
    cost: Cost | None = Field(None, description="What the model costs now.")
    snapshot: SnapshotInUse | None = Field(None, description="What replicas load from.")
    memory: Memory | None = Field(None, description="How the memory limit came about.")
    conditions: Conditions = Field([], description="What is well and what is not.")


class Caches(StatusPart):
    """A compile cache in the snapshot."""

    key: Text | None = Field(None, description="Engine image, GPU, driver and arguments, hashed.")
    bytes: Bytes | None = Field(None, description="Its size.")


class SnapshotStatus(StatusPart):
    """What was taken."""

    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Generation of the spec that this status is about."
    )
    digest: Text | None = Field(None, description="Digest (BLAKE3) over the manifest.")
    manifest: Text | None = Field(None, description="Where the manifest lies.")
    bytes: Bytes | None = Field(None, description="Size of all files.")
    files: Count | None = Field(None, description="Number of files.")
    caches: Annotated[list[Caches], Field(max_length=64)] = Field(
        [], description="Compile caches that came along. None do yet."
    )
    taken_at: Time | None = Field(None, description="When it was complete.")
    conditions: Conditions = Field([], description="What is well and what is not.")


class PoolStatus(StatusPart):
    """What the pool has and gives."""

    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Generation of the spec that this status is about."
    )
    nodes: Count | None = Field(None, description="Nodes that match.")
    gpus: Count | None = Field(None, description="GPUs that these nodes offer.")
    used_gpus: Count | None = Field(None, description="GPUs that replicas hold.")
    dollars_per_hour: Number | None = Field(None, description="What the used GPUs cost.")
    conditions: Conditions = Field([], description="What is well and what is not.")
