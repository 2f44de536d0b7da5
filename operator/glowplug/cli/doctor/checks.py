"""All checks in a table, run beside each other; what they found, drawn or as plain data."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from glowplug.cli.doctor import capacity, install, prometheus, rights, store
from glowplug.cli.doctor.finding import Check, Cluster, Finding, Options, bad
from glowplug.cli.doctor.gather import gather
from glowplug.kube import ApiError, Client

CHECKS: tuple[tuple[str, Check], ...] = (
    ("crds", install.crds),
    ("operator", install.operator),
    ("gateway", install.gateway),
    ("your rights", rights.user),
    ("operator's rights", rights.operator),
    ("gpus", capacity.gpus),
    ("pools", capacity.pools),
    ("store", store.store),
    ("prometheus", prometheus.prometheus),
)
MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


@dataclass(frozen=True, slots=True)
class Report:
    """Every finding with the name of its check."""

    findings: Sequence[tuple[str, Finding]]

    @property
    def failed(self) -> bool:
        """Whether something does not work."""
        return any(finding.level == "fail" for _, finding in self.findings)


async def examine(client: Client, options: Options) -> Report:
    """Run every check. Raises ApiError where the cluster does not answer at all."""
    cluster = await gather(client, options)
    found = await asyncio.gather(*(_run(check, cluster) for _, check in CHECKS))
    names = [name for name, _ in CHECKS]
    return Report([(n, one) for n, its in zip(names, found, strict=True) for one in its])


async def _run(check: Check, cluster: Cluster) -> list[Finding]:
    try:
        return await check(cluster)
    except ApiError as error:
        told = f"The check was cut short: {error.message}."
        return [bad(told, "Repeat; if it stays, look at the API server.")]


def as_json(report: Report) -> dict[str, object]:
    """Return a report as plain data."""
    findings = [{"check": name, **asdict(finding)} for name, finding in report.findings]
    return {"ok": not report.failed, "findings": findings}


def draw(report: Report) -> RenderableType:
    """Return a line for each finding, what to do below it, and the sum last."""
    lines: list[Text] = []
    for name, finding in report.findings:
        mark, style = MARKS[finding.level]
        lines.append(Text.assemble((mark, style), f" {name}: {finding.sentence}"))
        if finding.advice:
            lines.append(Text(f"    {finding.advice}"))
    levels = [finding.level for _, finding in report.findings]
    total = ", ".join(f"{sum(level == one for one in levels)} {level}" for level in MARKS)
    return Group(*lines, Text(f"\n{total}"))
