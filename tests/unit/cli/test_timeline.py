"""The stages of a cold start as bars."""

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from glowplug import api
from glowplug.api import STAGES
from glowplug.cli.timeline import BAR, LETTERS, NO_STATISTICS, bar, render, rows, stacked
from glowplug.cli.view import Start, cold_start

STATUS = {
    "last": {
        "total": 4.0,
        "path": "cold",
        "at": "2026-11-23T12:00:00Z",
        "stages": {"load": 1.0, "decide": 0.1, "restore": 2.0, "sandbox": 0.5, "first_token": 0.4},
        "hidden": {"route": 0.05},
    },
    "p50": 4.2,
    "p90": 6.125,
    "samples": 7,
    "paths": {"cold": {"samples": 7, "p50": {"restore": 1.9}, "p90": {"restore": 2.5}}},
}


def printed(status: dict) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(render(cold_start(status)))
    return console.file.getvalue()


def start(stages: dict[str, float]) -> Start:
    return Start(sum(stages.values()), "cold", None, stages, {})


def test_stages_come_in_the_order_of_a_start_each_after_the_one_before() -> None:
    found = rows(cold_start(STATUS).last, NO_STATISTICS)
    assert [(row.stage, row.begin) for row in found] == [
        ("decide", 0.0),
        ("sandbox", pytest.approx(0.1)),
        ("restore", pytest.approx(0.6)),
        ("load", pytest.approx(2.6)),
        ("first_token", pytest.approx(3.6)),
    ]


def test_a_stage_that_this_version_does_not_know_is_shown_last() -> None:
    found = rows(start({"teleport": 1.0, "load": 2.0}), NO_STATISTICS)
    assert [row.stage for row in found] == ["load", "teleport"]


@given(st.dictionaries(st.sampled_from(STAGES), st.floats(0, 1000), min_size=1))
def test_rows_partition_the_start(stages: dict[str, float]) -> None:
    found = rows(start(stages), NO_STATISTICS)
    assert len(found) == len(stages)
    assert all(a.begin + a.last == b.begin for a, b in pairwise(found))


@pytest.mark.parametrize(
    ("begin", "last", "total", "drawn"),
    [
        (0, 4, 4, "██████████"),
        (1, 2, 5, "  ████"),
        (0, 0.001, 4, "█"),
        (4, 0.001, 4, "         █"),
        (2, 0, 4, ""),
        (0, 1, 0, ""),
    ],
)
def test_bar(begin: float, last: float, total: float, drawn: str) -> None:
    assert bar(begin, last, total, width=10) == drawn


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100))
def test_a_bar_stays_within_its_width(begin: float, last: float, total: float) -> None:
    assert len(bar(begin, last, total)) <= BAR


def test_the_table_has_stages_usual_times_and_what_was_hidden() -> None:
    lines = printed(STATUS).splitlines()
    restore = next(line for line in lines if line.startswith("restore"))
    assert [word for word in restore.split() if "█" not in word] == [
        *("restore", "2.00", "s"),
        *("1.90", "s", "2.50", "s"),
    ]
    total = next(line for line in lines if line.startswith("total"))
    assert total.split() == ["total", "4.00", "s", "4.20", "s", "6.12", "s"]
    assert "overlapped, so not in the sum: route 0.05 s" in lines
    assert "median and p90 by stage: 7 starts of the path cold" in lines


def test_without_a_start_it_says_how_to_get_one() -> None:
    assert "Send a request while it is at zero" in printed({})


def test_earlier_starts_are_bars_of_letters_on_one_scale() -> None:
    starts = [start({"restore": 2.0, "load": 2.0}), start({"sandbox": 1.0, "restore": 1.0})]
    console = Console(file=io.StringIO(), width=120)
    console.print(render(cold_start(STATUS), starts))
    told = console.file.getvalue()
    assert "r" * (BAR // 2) + "L" * (BAR // 2) in told
    assert "b" * (BAR // 4) + "r" * (BAR // 4) + " " in told
    assert told.rstrip().endswith("b sandbox  r restore  L load")


def test_the_last_start_is_the_latest_that_the_operator_remembers() -> None:
    newer = start({"load": 7.5})
    console = Console(file=io.StringIO(), width=120)
    console.print(render(cold_start(STATUS), [newer]))
    assert "7.50 s" in console.file.getvalue()


@given(
    st.dictionaries(st.sampled_from(STAGES), st.floats(0, 1e3), min_size=1),
    st.floats(1e-3, 1e4),
)
def test_letters_never_leave_the_bar(stages: dict[str, float], scale: float) -> None:
    assert len(stacked(stages, max(scale, sum(stages.values())))) <= BAR


def test_stages_are_the_operators() -> None:
    assert api.STAGES == STAGES
    assert len(set(LETTERS.values())) == len(STAGES)
