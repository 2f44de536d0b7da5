"""Floors under the count: cron schedules, and the promise of a first answer."""

from dataclasses import dataclass

from glowplug.api import Schedule, Spell, Warmth
from glowplug.decide.observation import LeadTimes, seconds


@dataclass(slots=True)
class CronFloor:
    """One schedule, which is asked again only when what it said has run out."""

    schedule: Schedule
    _spell: Spell | None = None

    def at(self, now: float) -> int:
        """Replicas to keep at a time in seconds since the epoch."""
        spell = self._spell
        if spell is None or not spell.since <= now < spell.until:
            self._spell = spell = self.schedule.spell(now)
        return self.schedule.replicas if spell.active else 0


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
