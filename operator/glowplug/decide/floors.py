"""Floors under the count: cron schedules, and the promise of a first answer."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from glowplug.api import Schedule, Warmth
from glowplug.decide.observation import LeadTimes, seconds


@dataclass(slots=True)
class CronFloor:
    """One schedule: its floor holds from a start until the next end."""

    schedule: Schedule
    _since: float = 0.0
    _until: float = 0.0
    _active: bool = False

    def at(self, now: float) -> int:
        """Replicas to keep at a time in seconds since the epoch."""
        if not self._since <= now < self._until:
            self._look(now)
        return self.schedule.replicas if self._active else 0

    def _look(self, now: float) -> None:
        """Find the last change before now and the next one; in between nothing is computed."""
        local = datetime.fromtimestamp(int(now), ZoneInfo(self.schedule.timezone))
        started = _before(self.schedule.start, local)
        ended = _before(self.schedule.end, local)
        self._active = started is not None and (ended is None or started > ended)
        self._since = float(int(now))
        self._until = min(_after(self.schedule.start, local), _after(self.schedule.end, local))


def _before(cron: str, local: datetime) -> float | None:
    """The last time of a cron at or before a moment, in seconds since the epoch."""
    next_minute = local.replace(second=0) + timedelta(minutes=1)
    last = next(CronSim(cron, next_minute, reverse=True), None)
    return last.timestamp() if last is not None else None


def _after(cron: str, local: datetime) -> float:
    """The next time of a cron after a moment, in seconds since the epoch."""
    return next(CronSim(cron, local)).timestamp()


@dataclass(frozen=True, slots=True)
class Warm:
    """What must be kept so that a first request at zero is served in time."""

    hot: int
    asleep: int
    why: str


NOTHING = Warm(0, 0, "no promise of a first answer needs warmth")


def warm_floor(warmth: Warmth | None, lead: LeadTimes, standbys: float, cold: float | None) -> Warm:
    """The cheapest warmth that keeps the promise: none, then one asleep, then one hot.

    `cold` is the last cold lead time that was known: one that is missing now must not end the
    promise. While no lead time is known at all, nothing is kept, and the first start tells it.
    """
    if warmth is None or warmth.cold_start is None:
        return NOTHING
    promise = warmth.cold_start
    paths = [cold, seconds(lead.cached), seconds(lead.standby) if standbys >= 1 else None]
    known = [path for path in paths if path is not None]
    if not known or min(known) <= promise:
        return NOTHING
    fastest = f"the fastest start from zero takes {min(known):.0f} s of {promise:.0f} s promised"
    wake = seconds(lead.asleep)
    if wake is not None and wake <= promise:
        return Warm(0, 1, f"One replica sleeps, because {fastest} and waking takes {wake:.0f} s.")
    return Warm(1, 0, f"One replica stays hot, because {fastest}.")
