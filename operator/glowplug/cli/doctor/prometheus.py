"""Check of Prometheus: it answers, and has fresh samples in each dialect that models speak."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from glowplug.api import InvalidObject, ModelDeployment, dialect, parse, resolve_engine
from glowplug.cli.doctor.finding import Body, Cluster, Finding, bad, ok, warn
from glowplug.kube import SERVICES, ApiError, Forbidden

FRESH_S = 15.0
_TIMEOUT = aiohttp.ClientTimeout(total=10)
Answer = Sequence[Mapping[str, Any]]


class SilentError(Exception):
    """Prometheus did not answer a question; the message says what happened."""


async def prometheus(cluster: Cluster) -> list[Finding]:
    """Every dialect in use has samples, fresh ones, with the labels that decisions go by."""
    flags = cluster.installed.flags if cluster.installed is not None else {}
    url = cluster.options.prometheus_url or flags.get("prometheus-url")
    if not url:
        if cluster.installed is None:
            return [warn("Which Prometheus is used is not known.", "Give --prometheus-url.")]
        return [ok("No Prometheus is configured: demand at the gateways alone sets the count.")]
    in_use = dialects(cluster.models or ())
    try:
        if not in_use:
            await _ask(cluster, url, "vector(1)")
            return [ok(f"Prometheus at {url} answers; no model needs it yet.")]
        namespace = cluster.installed.namespace if cluster.installed is not None else "NAMESPACE"
        return [
            judge(name, series, await _ask(cluster, url, question(series)), ready, namespace)
            for name, ready in sorted(in_use.items())
            if (series := series_of(name)) is not None
        ]
    except SilentError as error:
        told = f"Prometheus at {url} does not answer: {error}."
        return [bad(told, "Check the chart's prometheus.url and that Prometheus runs.")]


def dialects(models: Sequence[Body]) -> dict[str, int]:
    """Return the dialects that models speak, each with the number of ready replicas."""
    found: dict[str, int] = {}
    for body in models:
        try:
            name = resolve_engine(parse(ModelDeployment, body)).metrics
        except InvalidObject:
            continue  # its Ready condition says so
        if name is not None:
            ready = (body.get("status") or {}).get("readyReplicas") or 0
            found[name] = found.get(name, 0) + ready
    return found


def series_of(name: str) -> str | None:
    """Return a series that every engine of the dialect has."""
    known = dialect(name)
    return known.waiting or known.running or next(iter(known.kv_usage), None)


def question(series: str) -> str:
    """PromQL for the age of the oldest sample of each model, in seconds."""
    return f"max by (namespace, glowplug_model) (time() - timestamp({series}))"


def judge(name: str, series: str, answer: Answer, ready: int, namespace: str) -> Finding:
    """Judge the answer for one dialect; `ready` replicas should be in it."""
    named = [s for s in answer if s["metric"].get("glowplug_model")]
    sd = f"http://glowplug-operator.{namespace}:8080/sd/engines"
    advice = f"Let it find the engines at {sd} (http_sd_configs), every 5 s."
    if answer and not named:
        return bad(f"{name}: {series} lacks the label glowplug_model.", advice)
    if not named:
        if not ready:
            return ok(f"{name}: nothing is ready, so there is nothing to scrape.")
        return bad(f"{name}: {ready} replicas are ready, and {series} has no sample.", advice)
    oldest = max(float(sample["value"][1]) for sample in named)
    if math.isnan(oldest) or oldest > FRESH_S:
        told = f"{name}: the oldest sample of {series} is {oldest:.0f} s old."
        return warn(told, f"Decisions need samples younger than {FRESH_S:.0f} s. {advice}")
    return ok(f"{name}: {series} is there for {len(named)} models, {oldest:.0f} s old at most.")


async def _ask(cluster: Cluster, url: str, query: str) -> Answer:
    service = None if cluster.options.prometheus_url else service_of(url)
    try:
        if service is None:
            data = await _directly(url, query)
        else:
            try:
                data = await _through_api_server(cluster, url, service, query)
            except Forbidden:
                data = await _directly(url, query)
        return result_of(data)
    except (ApiError, aiohttp.ClientError, TimeoutError) as error:
        raise SilentError(str(error) or type(error).__name__) from error


def result_of(data: bytes) -> Answer:
    """Read an instant vector. Raises SilentError for what is none."""
    try:
        body = json.loads(data)
        found: Answer = body["data"]["result"]
        if body["status"] != "success" or not isinstance(found, list):
            raise SilentError(str(body.get("error") or "its answer is no vector"))
    except (ValueError, KeyError, TypeError) as error:
        raise SilentError("its answer is not that of a Prometheus") from error
    return found


def service_of(url: str) -> tuple[str, str] | None:
    """Return (name, namespace) of the Service that a URL inside the cluster names, else None."""
    labels = (urlsplit(url).hostname or "").split(".")
    inside = len(labels) == 2 or (len(labels) > 2 and labels[2] == "svc")
    return (labels[0], labels[1]) if inside else None


async def _through_api_server(
    cluster: Cluster, url: str, service: tuple[str, str], query: str
) -> bytes:
    parts = urlsplit(url)
    name, namespace = service
    secure = parts.scheme == "https"
    return await cluster.client.proxy(
        SERVICES,
        f"https:{name}" if secure else name,
        namespace,
        f"{parts.path.strip('/')}/api/v1/query".lstrip("/"),
        {"query": query},
        port=parts.port or (443 if secure else 80),
    )


async def _directly(url: str, query: str) -> bytes:
    where, asked = f"{url.rstrip('/')}/api/v1/query", {"query": query}
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT) as session,
        session.get(where, params=asked) as answer,
    ):
        return await answer.read()
