"""A schedule tells whether its floor holds, and until when nothing changes."""

from datetime import datetime

import pytest

from glowplug.api import Schedule


def spell(at: str, start: str = "0 8 * * *", end: str = "0 18 * * *", timezone: str = "UTC"):
    schedule = Schedule(start=start, end=end, timezone=timezone, replicas=2)
    return schedule.spell(datetime.fromisoformat(at).timestamp())


@pytest.mark.parametrize(
    ("at", "active", "until"),
    [
        ("2026-03-02T07:59:59+00:00", False, "2026-03-02T08:00:00+00:00"),
        ("2026-03-02T08:00:00+00:00", True, "2026-03-02T18:00:00+00:00"),
        ("2026-03-02T17:59:59+00:00", True, "2026-03-02T18:00:00+00:00"),
        ("2026-03-02T18:00:00+00:00", False, "2026-03-03T08:00:00+00:00"),
    ],
    ids=["just before", "at the start", "just before the end", "at the end"],
)
def test_the_floor_holds_from_a_start_until_the_next_end(at: str, active: bool, until: str) -> None:
    found = spell(at)
    assert found.active is active
    assert found.since == datetime.fromisoformat(at).timestamp()
    assert found.until == datetime.fromisoformat(until).timestamp()


def test_the_clock_of_its_time_zone_counts_also_when_it_is_set_forward() -> None:
    # Berlin goes from UTC+1 to UTC+2 on 2026-03-29 at 01:00 UTC.
    found = spell("2026-03-28T20:00:00+00:00", timezone="Europe/Berlin")
    assert not found.active
    assert found.until == datetime.fromisoformat("2026-03-29T06:00:00+00:00").timestamp()


def test_where_both_times_fall_on_one_minute_the_end_wins() -> None:
    assert not spell("2026-03-02T08:30:00+00:00", end="0 8 * * *").active
