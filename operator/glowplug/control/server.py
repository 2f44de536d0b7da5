"""The operator's HTTP port: metrics, health, and the engines for Prometheus to scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from glowplug.api import Replica, replicas_of
from glowplug.kube import PodRecord


def targets(pods: Iterable[PodRecord]) -> list[dict[str, Any]]:
    """http_sd of every engine that has metrics and an address, one group each."""
    live = (pod for pod in pods if pod.ip and pod.phase not in ("Failed", "Succeeded"))
    return [
        {
            "targets": [f"{_host(replica)}:{replica.port}"],
            "labels": {
                "namespace": replica.namespace,
                "pod": replica.pod,
                "glowplug_model": replica.model,
                "__metrics_path__": replica.metrics_path,
            },
        }
        for pod in live
        for replica in replicas_of(pod)
        if replica.metrics is not None
    ]


def _host(replica: Replica) -> str:
    return f"[{replica.ip}]" if replica.ip and ":" in replica.ip else str(replica.ip)


def application(
    registry: CollectorRegistry,
    pods: Callable[[], Iterable[PodRecord]],
    is_ready: Callable[[], bool],
) -> web.Application:
    """The routes; `is_ready` says whether all caches are filled."""

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        if is_ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="The caches are not filled yet.\n")

    async def engines(_: web.Request) -> web.Response:
        if not is_ready():
            # Prometheus keeps its last targets on an error, and drops them all on an empty list.
            return web.Response(status=503, text="The caches are not filled yet.\n")
        return web.json_response(targets(pods()))

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", health),
            web.get("/readyz", ready),
            web.get("/sd/engines", engines),
        ]
    )
    return app


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Start serving on all addresses; the caller cleans the runner up."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
