"""Schedule: a floor under the replicas between two cron times, and the cron arithmetic of it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator

from glowplug.api.base import Part

_CRON = r"^[-0-9A-Za-z*,/#]+( +[-0-9A-Za-z*,/#]+){4}$"
Cron = Annotated[str, Field(min_length=9, max_length=128, pattern=_CRON)]


@dataclass(frozen=True, slots=True)
class Spell:
    """A stretch of time, `since` <= t < `until` (s since the epoch), in which nothing changes."""

    since: float
    until: float
    active: bool  # whether the floor holds


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

    def spell(self, at: float) -> Spell:
        """Whether the floor holds at `at` (s since the epoch), and until when that stays so.

        It holds from a start until the next end; where both fall on one minute, the end wins.
        """
        local = datetime.fromtimestamp(int(at), ZoneInfo(self.timezone))
        started, ended = _before(self.start, local), _before(self.end, local)
        return Spell(
            since=float(int(at)),
            until=min(_after(self.start, local), _after(self.end, local)),
            active=started is not None and (ended is None or started > ended),
        )


def _before(cron: str, local: datetime) -> float | None:
    """The last time of a cron at or before a moment, in seconds since the epoch."""
    next_minute = local.replace(second=0) + timedelta(minutes=1)
    last = next(CronSim(cron, next_minute, reverse=True), None)
    return last.timestamp() if last is not None else None


def _after(cron: str, local: datetime) -> float:
    """The next time of a cron after a moment, in seconds since the epoch."""
    return next(CronSim(cron, local)).timestamp()
