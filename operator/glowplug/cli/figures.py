"""Live figures from the operator's metrics: pure parsing, and finding the Pod that leads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from glowplug.kube import PODS, ApiError, Client, Forbidden

OPERATORS = "app.kubernetes.io/name=glowplug,app.kubernetes.io/component=operator"
PORT = 8080
_TIMEOUT = aiohttp.ClientTimeout(total=10)


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests of one model by where they are; None where nobody can tell."""

    running: float | None = None
    waiting: float | None = None
    held: float | None = None

    @property
    def demand(self) -> float | None:
        """All of them together, of what is known."""
        known = [n for n in (self.running, self.waiting, self.held) if n is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class Figures:
    """One scrape of an operator. `requests` by "namespace/name"; seconds."""

    leads: bool
    queue_age: float | None = None
    requests: Mapping[str, Requests] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the leader said, or why it is not known; `source` is its Pod or URL."""

    figures: Figures | None
    source: str = ""
    trouble: str = ""


def read(text: str) -> Figures:
    """Read an exposition in the Prometheus text format. Raises ValueError for anything else."""
    requests: dict[str, dict[str, float]] = {}
    single: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "glowplug_requests":
                model = f"{sample.labels['namespace']}/{sample.labels['model']}"
                requests.setdefault(model, {})[sample.labels["state"]] = sample.value
            elif not sample.labels:
                single[sample.name] = sample.value
    if "glowplug_leader" not in single:
        raise ValueError("there is no glowplug_leader in it")
    return Figures(
        leads=single["glowplug_leader"] == 1,
        queue_age=single.get("glowplug_queue_age_seconds"),
        requests={
            model: Requests(s.get("running"), s.get("waiting"), s.get("held"))
            for model, s in requests.items()
        },
    )


async def hear(client: Client, metrics_url: str | None) -> Heard:
    """Ask the operator that leads; from a URL where one is given, else through the API server."""
    if metrics_url:
        return await _from_url(metrics_url)
    try:
        pods = await client.list(PODS, label_selector=OPERATORS)
    except Forbidden:
        told = "You may not list the operator's Pods; give --metrics-url"
        return Heard(None, trouble=f"{told}, or ask for get on pods and pods/proxy.")
    except ApiError as error:
        return Heard(None, trouble=f"The operator was not found: {error.message}.")
    trouble = "No operator runs. Look at: kubectl get pods -A -l " + OPERATORS
    for pod in pods:
        name = pod["metadata"]["name"]
        try:
            figures = read((await ask(client, pod, "metrics")).decode())
        except Forbidden:
            told = "You may not read the operator's metrics; ask for get on pods/proxy"
            return Heard(None, trouble=f"{told}, or give --metrics-url.")
        except (ApiError, ValueError) as error:
            trouble = f"Operator {name} does not tell its metrics: {error}."
            continue
        if figures.leads:
            return Heard(figures, name)
        trouble = "No operator leads; see docs/runbooks/GlowplugNoLeader.md."
    return Heard(None, trouble=trouble)


async def cold_starts(client: Client, namespace: str, name: str) -> list[dict[str, Any]]:
    """Return the last cold starts as the operators remember them; none where none is heard."""
    known: dict[str, dict[str, Any]] = {}
    try:
        for pod in await client.list(PODS, label_selector=OPERATORS):
            found = json.loads(await ask(client, pod, f"cold-starts/{namespace}/{name}"))
            known |= {start["at"]: start for start in found}
    except (ApiError, ValueError, TypeError, KeyError):
        pass  # an older operator, or no right to ask: the status has the last one
    return [known[at] for at in sorted(known, reverse=True)]


async def in_flight(client: Client, namespace: str, name: str) -> dict[str, int] | None:
    """Requests in flight by Pod uid, as the first operator that answers says; None: unknown."""
    try:
        for pod in await client.list(PODS, label_selector=OPERATORS):
            with suppress(ApiError, ValueError):
                found = json.loads(await ask(client, pod, f"in-flight/{namespace}/{name}"))
                if found is not None:
                    return {str(uid): int(count) for uid, count in found.items()}
    except ApiError:
        pass  # no right to look for it
    return None


async def ask(client: Client, pod: Mapping[str, Any], path: str) -> bytes:
    """GET from an operator's Pod through the API server."""
    metadata = pod["metadata"]
    return await client.proxy(PODS, metadata["name"], metadata["namespace"], path, port=PORT)


async def _from_url(url: str) -> Heard:
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(url) as answer:
            answer.raise_for_status()
            figures = read(await answer.text())
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        told = f"{url} gives no metrics of the operator ({error or type(error).__name__})"
        return Heard(None, trouble=f"{told}. Try: kubectl port-forward, with /metrics in the URL.")
    trouble = "" if figures.leads else f"{url} is not the operator that leads: figures lack."
    return Heard(figures, url, trouble)
