"""The stages of cold starts as bars: where the time between a request and its first token went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glowplug.api import STAGES
from glowplug.cli import words
from glowplug.cli.view import ColdStart, PathStatistics, Seconds, Start

BAR = 40
MOST = 10
# One letter for each stage, so that a bar is readable without colours.
LETTERS = dict(zip(STAGES, "dsnbiraLcRf?", strict=True))
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


def render(cold_start: ColdStart, recent: Sequence[Start] = ()) -> RenderableType:
    """Return the last cold start stage by stage, and below it the ones before, a line each."""
    last = latest(cold_start, recent)
    if len(recent) < 2:
        return last
    return Group(last, Text(), *earlier(recent[:MOST]))


def earlier(starts: Sequence[Start]) -> Iterator[RenderableType]:
    """Yield a bar for each start on one scale, and what its letters mean."""
    longest = max(start.total for start in starts)
    table = Table(box=None, pad_edge=False)
    table.add_column("REQUEST AT")
    table.add_column("PATH")
    table.add_column("TOTAL", justify="right")
    table.add_column("", min_width=BAR, no_wrap=True)
    for start in starts:
        line = stacked(start.stages, longest)
        table.add_row(start.at or words.NOTHING, start.path, words.seconds(start.total), line)
    yield table
    used = [s for s in STAGES if any(start.stages.get(s) for start in starts)]
    yield Text("  ".join(f"{LETTERS[stage]} {stage}" for stage in used))


def stacked(stages: Seconds, scale: float, width: int = BAR) -> str:
    """Return the stages as letters, one column each `scale / width` seconds; the sum is kept."""
    line, end = "", 0.0
    for stage in in_order(stages):
        end += stages[stage]
        columns = round(min(end, scale) / scale * width) if scale > 0 else 0
        line += LETTERS.get(stage, "?") * (columns - len(line))
    return line


def latest(cold_start: ColdStart, recent: Sequence[Start] = ()) -> RenderableType:
    """Return the last cold start as a table of bars, with what overlapped it below."""
    start = recent[0] if recent else cold_start.last
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
