"""Scaling and Warmth: the part of a ModelDeployment that `decide` works from."""

from typing import Annotated, ClassVar

from pydantic import Field

from glowplug.api.base import Part, Rule
from glowplug.api.fields import Items, duration, percent
from glowplug.api.schedule import Schedule

MAX_REPLICAS = 8


class SLO(Part):
    """The service level that replicas are bought for."""

    queue_wait: Annotated[float, duration("1ms", "1h")] = Field(
        "2s", validate_default=True, description="Longest good wait before a request is served."
    )
    attainment: Annotated[float, percent()] = Field(
        "99%", validate_default=True, description="Share of requests that wait no longer."
    )


class Scaling(Part):
    """How far the replicas may go, and what makes them go there."""

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = Field(
        0, description="Replicas that always run."
    )
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        MAX_REPLICAS, description="Replicas that never are exceeded."
    )
    target_concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Requests per replica to size for. Default: learned from saturation."
    )
    target_queue_depth: Annotated[int, Field(ge=0, le=100_000)] = Field(
        2, description="Waiting requests per replica above which it counts as saturated."
    )
    idle_after: Annotated[float, duration("1s", "168h")] = Field(
        "5m", validate_default=True, description="Time without demand before scaling to zero."
    )
    slo: SLO = Field(
        default_factory=SLO, description="The service level to size for. Not weighed yet."
    )
    schedule: Annotated[Items[Schedule], Field(max_length=32)] = Field(
        (), description="Floors under the replicas at certain times."
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            message=f"scaling.minReplicas must not be greater than scaling.maxReplicas"
            f" ({MAX_REPLICAS} when left out)",
            cel=(
                "(has(self.minReplicas) ? self.minReplicas : 0)"
                f" <= (has(self.maxReplicas) ? self.maxReplicas : {MAX_REPLICAS})"
            ),
            holds=lambda self: self.min_replicas <= self.max_replicas,
            field="minReplicas",
        ),
        Rule(
            message="scaling.schedule: replicas must not be greater than scaling.maxReplicas"
            f" ({MAX_REPLICAS} when left out)",
            cel=(
                "!has(self.schedule) || self.schedule.all(s, s.replicas"
                f" <= (has(self.maxReplicas) ? self.maxReplicas : {MAX_REPLICAS}))"
            ),
            holds=lambda self: all(s.replicas <= self.max_replicas for s in self.schedule),
            field="schedule",
        ),
    )


class Warmth(Part):
    """The promise to whoever comes first."""

    cold_start: Annotated[float, duration("1s", "1h")] | None = Field(
        None,
        description=(
            "A first request at zero is served within this; the cheapest warmth that keeps the "
            "promise is kept. Left out: scale to zero, whatever a start takes."
        ),
    )
