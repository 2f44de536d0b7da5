"""Medians and 90th percentiles per stage and path; lead times across a restart."""

import pytest

from glowplug.api import STAGES
from glowplug.observe import ColdStart, ColdStartHistory, MeasuredLeadTimes
from glowplug.observe.history import quantile


def start(total: float, path: str = "cold") -> ColdStart:
    stages = dict.fromkeys(STAGES, 0.0) | {"load": total}
    return ColdStart("ns/m", "u", total, stages, {}, path, at=0.0)


def test_figures_by_path():
    history = ColdStartHistory()
    for total in (1.0, 2.0, 3.0, 4.0, 10.0):
        history.add(start(total))
    history.add(start(0.5, "cached"))
    cold = history.stats("cold")
    assert (cold.samples, cold.p50["total"], cold.p90["total"]) == (5, 3.0, 10.0)
    assert cold.p50["load"] == 3.0
    assert history.all_stats().keys() == {"cold", "cached"}
    assert history.stats("standby") is None
    assert history.last.path == "cached"


def test_only_the_last_ones_count():
    history = ColdStartHistory(keep=2)
    for total in (100.0, 1.0, 2.0):
        history.add(start(total))
    assert history.stats("cold").p90["total"] == 2.0


def test_lead_times_come_from_the_status_until_measured_anew():
    history = ColdStartHistory()
    assert history.lead_times() == MeasuredLeadTimes()
    history.remember({"paths": {"cold": {"p50": {"total": 4.2}}, "odd": {}, "cached": None}})
    assert history.lead_times() == MeasuredLeadTimes(cold=4.2)
    for lead in (3.0, 3.5, float("nan"), -1.0):
        history.add_lead("cold", lead)
    assert history.lead_times() == MeasuredLeadTimes(cold=3.25)


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [([5.0], 0.9, 5.0), (range(1, 11), 0.9, 9), (range(1, 11), 0.5, 5), (range(1, 11), 1.0, 10)],
)
def test_quantile_is_by_nearest_rank(values, q, expected):
    assert quantile(list(values), q) == expected


def test_recent_starts_of_all_paths_come_latest_first():
    history = ColdStartHistory()
    for at, path in ((1.0, "cold"), (3.0, "cached"), (2.0, "cold")):
        history.add(ColdStart("ns/m", "u", 1.0, dict.fromkeys(STAGES, 0.0), {}, path, at))
    assert [one.at for one in history.recent()] == [3.0, 2.0, 1.0]
