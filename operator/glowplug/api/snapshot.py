"""ModelSnapshot: weights in object storage, content-addressed."""

from typing import Any, ClassVar

from pydantic import Field

from glowplug.api.base import NAME_RULE, Object, Part, Rule
from glowplug.api.shared import SOURCE_RULES, Endpoint, SecretRef, Source
from glowplug.api.status import SnapshotStatus


class Destination(Part):
    """Where the snapshot is written."""

    url: Source = Field(description="Bucket and prefix, for example s3://snapshots/team-a.")
    secret_ref: SecretRef | None = Field(
        None, description="The Secret with the credentials that write there."
    )
    endpoint: Endpoint | None = Field(None, description="URL of an S3-compatible store.")
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            message="destination.url must be s3://bucket or s3://bucket/prefix",
            cel="self.url.matches('^s3://[^/@\\\\s]+(/[^\\\\s]*)?$')",
            holds=lambda self: _is_bucket(self.url),
            field="url",
        ),
    )


def _is_bucket(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    bucket = rest.split("/", 1)[0]
    return scheme == "s3" and bool(bucket) and "@" not in bucket and len(url.split()) == 1


class ModelSnapshotSpec(Part):
    """What to take, and where to put it."""

    source: Source = Field(
        description="Where the weights are, for example s3://models/smollm2 or hf://org/name@rev."
    )
    secret_ref: SecretRef | None = Field(
        None, description="The Secret with the credentials that read the source."
    )
    endpoint: Endpoint | None = Field(None, description="URL of an S3-compatible store.")
    destination: Destination | None = Field(
        None, description="Where to write. Default: the store that the operator is set up with."
    )
    rules: ClassVar[tuple[Rule, ...]] = SOURCE_RULES


class ModelSnapshot(Object):
    """A copy of a model's weights that replicas restore from, checked chunk by chunk."""

    kind: ClassVar[str] = "ModelSnapshot"
    plural: ClassVar[str] = "modelsnapshots"
    short_name: ClassVar[str] = "msnap"
    status_model: ClassVar[Any] = SnapshotStatus
    columns: ClassVar[tuple[tuple[str, str, str, str], ...]] = (
        ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', "Can it be used?"),
        ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why (not)?"),
        ("Bytes", "integer", ".status.bytes", "Size of all files."),
        ("Digest", "string", ".status.digest", "Digest over the manifest."),
        ("Age", "date", ".metadata.creationTimestamp", "Since when it exists."),
    )
    rules: ClassVar[tuple[Rule, ...]] = (NAME_RULE,)

    spec: ModelSnapshotSpec
