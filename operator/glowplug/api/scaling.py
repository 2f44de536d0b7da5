"""Scaling and Warmth: the part of a ModelDeployment that `decide` works from."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator

from glowplug.api.base import Part, Rule
from glowplug.api.fields import Items, duration, percent

MAX_REPLICAS = 8

_CRON = r"^[-0-9A-Za-z*,/#]+( +[-0-9A-Za-z*,/#]+){4}$"
Cron = Annotated[str, Field(min_length=9, max_length=128, pattern=_CRON)]


class SLO(Part):
    """The service level that replicas are bought for."""

    queue_wait: Annotated[float, duration("1ms", "1h")] = Field(
        "2s", validate_default=True, description="Longest good wait before a request is served."
    )
    attainment: Annotated[float, percent()] = Field(
        "99%", validate_default=True, description="Share of requests that wait no longer."
    )


class Schedule(Part):
    """A floor under the replicas between two cron times."""

    start: Cron = Field(description='When the floor begins, as cron: "0 8 * * 1-5".')
    end: Cron = Field(description='When it ends, as cron: "0 18 * * 1-5".')
    timezone: Annotated[
        str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][-+A-Za-z0-9_/]*$")
    ] = Field("UTC", description="Time zone of both, for example Europe/Berlin.")
    replicas: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="Replicas to keep meanwhile, at most scaling.maxReplicas."
    )

    @field_validator("start", "end")
    @classmethod
    def _readable(cls, value: str) -> str:
        try:
            next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
        except (CronSimError, StopIteration) as problem:
            raise ValueError(f"{value!r} is not a cron time that comes: {problem}") from None
        return value

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            raise ValueError(f"{value!r} is not a known time zone such as Europe/Berlin") from None
        return value


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
    slo: SLO = Field(default_factory=SLO, description="The service level to size for.")
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
