"""Parts of specs that more than one kind uses: object storage, and what Pods bring along."""

from typing import Annotated, Literal

from pydantic import Field

from glowplug.api.base import Part, Rule
from glowplug.api.fields import DNSSubdomain, Short

Source = Annotated[str, Field(min_length=6, max_length=1024)]
Endpoint = Annotated[str, Field(min_length=8, max_length=1024, pattern=r"^https?://[^\s@]+$")]

SCHEMES = ("s3", "gs", "az", "hf", "pvc", "http", "https")


def _names_a_source(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    return scheme in SCHEMES and bool(rest) and not any(c.isspace() for c in url)


def _carries_credentials(url: str) -> bool:
    scheme, _, rest = url.partition("://")
    return scheme != "hf" and "@" in rest.split("/", 1)[0]


SOURCE_RULES = (
    Rule(
        message=f"source must start with one of {', '.join(f'{s}://' for s in SCHEMES)}"
        " and hold no spaces",
        cel=f"self.source.matches('^({'|'.join(SCHEMES)})://[^\\\\s]+$')",
        holds=lambda self: _names_a_source(self.source),
        field="source",
    ),
    Rule(
        message="source must not carry credentials; name a Secret in secretRef instead",
        cel="self.source.startsWith('hf://') || !self.source.matches('^[a-z0-9]+://[^/]*@')",
        holds=lambda self: not _carries_credentials(self.source),
        field="source",
    ),
)


class SecretRef(Part):
    """A Secret in the same namespace."""

    name: DNSSubdomain = Field(description="Name of a Secret in the same namespace.")


class Toleration(Part):
    """A toleration of a Pod, as Kubernetes defines it."""

    key: Short | None = Field(None, description="Taint key; absent with operator Exists: all.")
    operator: Literal["Exists", "Equal"] | None = Field(
        None, description="How the value is compared. Default: Equal."
    )
    value: Annotated[str, Field(max_length=63)] | None = Field(
        None, description="Taint value that Equal compares with."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Taint effect to tolerate; absent: all effects."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Seconds that NoExecute is tolerated; absent: for ever."
    )
