"""The operator's HTTP port: metrics, health, engines for Prometheus, and what the command reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from glowplug.api import replicas_of
from glowplug.control.report import told
from glowplug.kube import PodRecord
from glowplug.observe import ColdStart


def targets(pods: Iterable[PodRecord]) -> list[dict[str, Any]]:
    """http_sd of every engine that has metrics and an address, one group each."""
    live = (pod for pod in pods if pod.ip and pod.phase not in ("Failed", "Succeeded"))
    return [
        {
            "targets": [replica.authority(replica.port)],
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


def application(
    registry: CollectorRegistry,
    pods: Callable[[], Iterable[PodRecord]],
    cold_starts: Callable[[str], Iterable[ColdStart]],
    in_flight: Callable[[str], Mapping[str, int] | None],
    is_ready: Callable[[], bool],
) -> web.Application:
    """The routes; `cold_starts` and `in_flight` of a "namespace/model", the latter by
    Pod uid, None while it is not known.

    is_ready: all caches are filled.
    """

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

    async def starts(request: web.Request) -> web.Response:
        model = f"{request.match_info['namespace']}/{request.match_info['model']}"
        return web.json_response([told(start) for start in cold_starts(model)])

    async def load(request: web.Request) -> web.Response:
        model = f"{request.match_info['namespace']}/{request.match_info['model']}"
        return web.json_response(in_flight(model))

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", health),
            web.get("/readyz", ready),
            web.get("/sd/engines", engines),
            web.get("/cold-starts/{namespace}/{model}", starts),
            web.get("/in-flight/{namespace}/{model}", load),
        ]
    )
    return app


async def serve(app: web.Application, port: int) -> web.AppRunner:
    """Start serving on all addresses; the caller cleans the runner up."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner
