"""`glowplug top`: replicas, requests and dollars of every model, now. Gathered, then drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from glowplug.cli import figures, view, words
from glowplug.cli.figures import Heard, Requests
from glowplug.kube import GPUPOOLS, MODELDEPLOYMENTS, ApiError, Forbidden, NotFound

if TYPE_CHECKING:
    from glowplug.kube import Client, Json

NUMBERS = ("DEMAND", "RUNNING", "WAITING", "HELD", "$/H")


@dataclass(frozen=True, slots=True)
class Pool:
    """One GPUPool: GPUs, and dollars an hour of those in use."""

    name: str
    used: int
    gpus: int
    dollars_per_hour: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at the cluster."""

    models: Sequence[view.Model]
    pools: Sequence[Pool]
    heard: Heard

    def requests(self, model: view.Model) -> Requests:
        """Return the requests of a model."""
        figures = self.heard.figures
        key = f"{model.namespace}/{model.name}"
        return figures.requests.get(key, Requests()) if figures else Requests()


async def look(client: Client, namespace: str | None, metrics_url: str | None) -> Snapshot:
    """Read everything once, all at the same time. Raises ApiError."""
    bodies, pools, heard = await asyncio.gather(
        client.list(MODELDEPLOYMENTS, namespace), _pools(client), figures.hear(client, metrics_url)
    )
    return Snapshot([view.model(body) for body in bodies], pools, heard)


async def _pools(client: Client) -> list[Pool]:
    try:
        return [pool(body) for body in await client.list(GPUPOOLS)]
    except (Forbidden, NotFound):
        return []


def pool(body: Json) -> Pool:
    """Read a GPUPool."""
    status = body.get("status") or {}
    used, gpus = status.get("usedGpus") or 0, status.get("gpus") or 0
    return Pool(body["metadata"]["name"], used, gpus, status.get("dollarsPerHour"))


def as_json(seen: Snapshot) -> dict[str, Any]:
    """Return a look as plain data; what is not known is null."""
    figures = seen.heard.figures
    return {
        "models": [
            {
                "namespace": model.namespace,
                "name": model.name,
                "serving": words.serving(model),
                "replicas": model.replicas,
                "readyReplicas": model.ready,
                "wantedReplicas": model.desired,
                "tiers": dict(model.tiers),
                "demand": seen.requests(model).demand,
                **asdict(seen.requests(model)),
                "dollarsPerHour": model.dollars_per_hour,
            }
            for model in seen.models
        ],
        "pools": [
            {
                "name": pool.name,
                "usedGpus": pool.used,
                "gpus": pool.gpus,
                "dollarsPerHour": pool.dollars_per_hour,
            }
            for pool in seen.pools
        ],
        "operator": {
            "source": seen.heard.source or None,
            "queueAgeSeconds": figures.queue_age if figures else None,
            "trouble": seen.heard.trouble or None,
        },
    }


def draw(seen: Snapshot, *, namespaces: bool) -> RenderableType:
    """Return a look as a table: the dearest first, the totals last."""
    table = Table(box=None, pad_edge=False, show_footer=True)
    names = ("NAMESPACE", "NAME") if namespaces else ("NAME",)
    ready = sum(model.ready for model in seen.models)
    for column in names:
        table.add_column(column, "all" if column == names[0] else "", no_wrap=True)
    table.add_column("SERVING", no_wrap=True)
    replicas = f"{ready}/{sum(model.replicas for model in seen.models)}"
    table.add_column("REPLICAS", replicas, no_wrap=True)
    table.add_column("TIERS", no_wrap=True)
    for column, total in zip(NUMBERS, totals(seen), strict=True):
        table.add_column(column, total, justify="right", no_wrap=True)
    for model in sorted(seen.models, key=_order):
        table.add_row(
            *((model.namespace, model.name) if namespaces else (model.name,)),
            words.serving(model),
            words.replicas(model),
            words.tiers(model),
            *numbers(seen.requests(model), model.dollars_per_hour),
        )
    return Group(*(Text(line) for line in head(seen)), Text(), table)


def _order(model: view.Model) -> tuple[float, str, str]:
    return -(model.dollars_per_hour or 0.0), model.namespace, model.name


def numbers(requests: Requests, dollars: float | None) -> tuple[str, ...]:
    """Return a line's figures, in the order of NUMBERS."""
    counts = (requests.demand, requests.running, requests.waiting, requests.held)
    return *(words.count(number) for number in counts), words.dollars(dollars)


def totals(seen: Snapshot) -> tuple[str, ...]:
    """Return the sums of what is known, in the order of NUMBERS."""
    every = [seen.requests(model) for model in seen.models]
    prices = [m.dollars_per_hour for m in seen.models]
    running, waiting = _sum([r.running for r in every]), _sum([r.waiting for r in every])
    return numbers(Requests(running, waiting, _sum([r.held for r in every])), _sum(prices))


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def head(seen: Snapshot) -> list[str]:
    """Return the lines above the table: pools, the operator, and what is in the way."""
    lines = [
        f"pool {pool.name}: {pool.used} of {pool.gpus} GPUs used, "
        f"{words.dollars(pool.dollars_per_hour)} $/h"
        for pool in seen.pools
    ]
    if seen.heard.figures is not None:
        age = seen.heard.figures.queue_age
        lines.append(f"operator {seen.heard.source}: its queue is {words.seconds(age)} behind")
    if seen.heard.trouble:
        lines.append(f"! {seen.heard.trouble}")
    return lines


async def watch(
    client: Client,
    terminal: Console,
    namespace: str | None,
    metrics_url: str | None,
    interval: float,
) -> None:
    """Draw again every `interval` seconds until cancelled; an error is a line, and no end."""
    with Live(console=terminal, screen=True, auto_refresh=False) as live:
        while True:
            try:
                seen = await look(client, namespace, metrics_url)
                live.update(draw(seen, namespaces=namespace is None), refresh=True)
            except ApiError as error:
                live.update(Text(f"! {error.message}; trying again"), refresh=True)
            await asyncio.sleep(interval)
