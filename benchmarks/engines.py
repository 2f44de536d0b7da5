"""One server in the place of what runs in all simulated Pods, whose addresses are loopback's."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack

from aiohttp import web

from glowplug.api import meta

ENGINE_PORT = 18000


class Engines:
    """What every simulated Pod runs: launcher, engine, metrics.

    A streamed answer sends one token and goes on when `release` is set; `running` is what every
    engine's metrics say, by model.
    """

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.running: dict[str, float] = {}
        self.model_of: dict[str, str] = {}  # by the Pod's IP
        self._born = time.time()

    async def serve(self, stack: AsyncExitStack) -> None:
        """Listen on loopback only, at whatever address of it."""
        for port in (meta.LAUNCHER_PORT, ENGINE_PORT):
            app = web.Application()
            app.router.add_get("/state", self._state)
            app.router.add_get("/health", self._health)
            app.router.add_get("/metrics", self._metrics)
            app.router.add_post("/v1/chat/completions", self._answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, _loopback_socket(port), backlog=4096).start()

    async def _state(self, request: web.Request) -> web.Response:
        if "after" in request.query:
            await asyncio.sleep(float(request.query["timeout"]))
        state = {"seq": 1, "phase": "ready", "now": time.time(), "launchedAt": self._born}
        return web.json_response(state | {"readyAt": self._born, "stages": []})

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _metrics(self, request: web.Request) -> web.Response:
        model = self.model_of.get(request.host.split(":")[0], "")
        running = self.running.get(model, 0.0)
        text = f"vllm:num_requests_running {running}\nvllm:num_requests_waiting 0\n"
        return web.Response(text=text, content_type="text/plain")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        token = {"choices": [{"index": 0, "delta": {"content": "yes"}}]}
        await response.write(f"data: {json.dumps(token)}\n\n".encode())
        await self.release.wait()
        await response.write(b"data: [DONE]\n\n")
        return response


def _loopback_socket(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    try:
        made.bind(("0.0.0.0", port))
    except OSError as error:
        told = f"port {port} is taken: the benchmark answers there for every simulated Pod"
        raise RuntimeError(told) from error
    return made
