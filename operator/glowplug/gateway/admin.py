"""The admin port: demand stream, metrics, probes. Not for clients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from glowplug.gateway.demand import DemandStream
from glowplug.gateway.fleet import Fleet
from glowplug.gateway.metrics import Metrics


def admin_app(
    *, fleet: Fleet, demand: DemandStream, metrics: Metrics, ready: Callable[[], bool]
) -> web.Application:
    """The admin port's application. ready: whether clients should be sent here."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="not synced with the API server, or stopping\n")

    async def show_metrics(_: web.Request) -> web.Response:
        body = generate_latest(metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def stream_demand(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        async with aclosing(demand.lines(fleet)) as lines:
            async for line in lines:
                try:
                    await response.write(line)
                except ConnectionError:
                    break
        return response

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/demand", stream_demand)
    return app


async def serve_admin(
    app: web.Application, host: str | None, port: int
) -> tuple[web.AppRunner, int]:
    """Listen; returns what to clean up, and the port, which the kernel picks for 0."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound: int = runner.addresses[0][1]
    return runner, bound
