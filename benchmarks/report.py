"""Rows of a benchmark: collect samples, print a table, write JSON with machine and command."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One measured quantity. `tool` is glowplug, a peer's name with its setting, or limit."""

    case: str
    tool: str
    metric: str
    unit: str
    n: int
    min: float
    median: float
    max: float


@dataclass(slots=True)
class Report:
    """Samples by (case, tool, metric, unit), in the order of their first appearance."""

    samples: dict[tuple[str, str, str, str], list[float]] = field(default_factory=dict)
    missing: list[dict[str, str]] = field(default_factory=list)

    def add(self, case: str, tool: str, metric: str, unit: str, value: float) -> None:
        """Add one sample."""
        self.samples.setdefault((case, tool, metric, unit), []).append(value)

    def lacks(self, case: str, tool: str, reason: str) -> None:
        """Say why a peer has no figures."""
        self.missing.append({"case": case, "tool": tool, "reason": reason})

    def rows(self) -> list[Row]:
        """Minimum, median and maximum of each quantity."""
        return [
            Row(*key, len(got), min(got), statistics.median(got), max(got))
            for key, got in self.samples.items()
        ]

    def show(self) -> None:
        """Print the table."""
        table = Table("case", "tool", "metric", "unit", "n", "min", "median", "max")
        for row in self.rows():
            figures = (f"{value:.3g}" for value in (row.min, row.median, row.max))
            table.add_row(row.case, row.tool, row.metric, row.unit, str(row.n), *figures)
        for gap in self.missing:
            table.add_row(gap["case"], gap["tool"], gap["reason"], "", "", "", "", "")
        Console().print(table)

    def write(self, path: Path) -> None:
        """Write the rows with machine, date and command."""
        document = {
            "machine": f"{os.cpu_count()} cores, {platform.platform()}",
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "command": " ".join(["python", *sys.argv]),
            "rows": [asdict(row) for row in self.rows()],
            "missing": self.missing,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")


def arguments(doc: str | None) -> argparse.Namespace:
    """Read the options every benchmark has."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: within 5 minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    return parser.parse_args()
