"""The stages of a cold start as bars: where the time between a request and its first token went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glowplug.api import STAGES
from glowplug.cli import words
from glowplug.cli.view import ColdStart, PathStatistics, Seconds, Start

BAR = 40
NO_STATISTICS = PathStatistics(samples=0, p50={}, p90={})


@dataclass(frozen=True, slots=True)
class Row:
    """One stage: when it began, seconds after the request; how long it took; what is usual."""

    stage: str
    begin: float
    last: float
    p50: float | None
    p90: float | None


def rows(start: Start, usual: PathStatistics) -> list[Row]:
    """Return the stages in the order in which they blocked the start, one after the other."""
    found: list[Row] = []
    begin = 0.0
    for stage in in_order(start.stages):
        took = start.stages[stage]
        found.append(Row(stage, begin, took, usual.p50.get(stage), usual.p90.get(stage)))
        begin += took
    return found


def in_order(stages: Seconds) -> Iterator[str]:
    """Yield known stages in their order, then any that a newer operator has named."""
    yield from (stage for stage in STAGES if stage in stages)
    yield from (stage for stage in stages if stage not in STAGES)


def bar(begin: float, last: float, total: float, width: int = BAR) -> str:
    """Return a bar of at least one column from `begin` on, on a scale of `width` for `total`."""
    if total <= 0 or last <= 0:
        return ""
    first = min(width - 1, round(min(begin, total) / total * width))
    end = round(min(begin + last, total) / total * width)
    return " " * first + "█" * max(1, end - first)


def render(cold_start: ColdStart) -> RenderableType:
    """Return the last cold start as a table of bars, with what overlapped it below."""
    start = cold_start.last
    if start is None:
        return Text("No cold start has been measured yet. Send a request while it is at zero.")
    usual = cold_start.paths.get(start.path, NO_STATISTICS)
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("STAGE", "total")
    table.add_column("LAST", words.seconds(start.total), justify="right")
    table.add_column("", "", min_width=BAR, style="cyan", no_wrap=True)
    table.add_column("MEDIAN", words.seconds(cold_start.p50), justify="right")
    table.add_column("P90", words.seconds(cold_start.p90), justify="right")
    for row in rows(start, usual):
        table.add_row(
            row.stage,
            words.seconds(row.last),
            bar(row.begin, row.last, start.total),
            words.seconds(row.p50),
            words.seconds(row.p90),
        )
    return Group(table, *notes(start, usual))


def notes(start: Start, usual: PathStatistics) -> Iterator[Text]:
    """Yield what the table does not show."""
    if start.hidden:
        parts = ", ".join(f"{name} {words.seconds(took)}" for name, took in start.hidden.items())
        yield Text(f"overlapped, so not in the sum: {parts}")
    if usual.samples:
        yield Text(f"median and p90 by stage: {usual.samples} starts of the path {start.path}")
