"""The HTTP side of the server: OpenAI's paths, health, metrics, and an end without cut answers."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from json import JSONDecodeError

import protocol
from aiohttp import web
from aiohttp.typedefs import Handler
from engine import Engine, EngineError, Piece

DRAIN_SECONDS = 3600.0  # whoever sends SIGTERM sets the real limit, by SIGKILL
MAX_BODY = 4 * 2**20


class Server:
    """The handlers of one engine under one name."""

    def __init__(self, engine: Engine, served_name: str) -> None:
        self._engine = engine
        self._name = served_name

    def application(self) -> web.Application:
        """Return the routes."""
        application = web.Application(client_max_size=MAX_BODY, middlewares=[errors_as_json])
        application.router.add_post("/v1/chat/completions", self.chat)
        application.router.add_post("/v1/completions", self.complete)
        application.router.add_get("/v1/models", self.models)
        application.router.add_get("/health", self.health)
        application.router.add_get("/metrics", self.metrics)
        return application

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat."""
        return await self._answer(request, chat=True)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Continue a prompt."""
        return await self._answer(request, chat=False)

    async def models(self, _: web.Request) -> web.Response:
        """List the one model."""
        model = {"id": self._name, "object": "model", "owned_by": "glowplug", "created": 0}
        return web.json_response(
            {"object": "list", "data": [model | {"max_model_len": self._engine.context}]}
        )

    async def health(self, _: web.Request) -> web.Response:
        """200 once the model is loaded and as long as its process lives."""
        loaded = self._engine.loaded
        state = "ok" if loaded else "loading"
        return web.json_response({"status": state}, status=200 if loaded else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """Tell the load to Prometheus."""
        text = protocol.metrics(self._engine.load, self._engine.kv_usage, self._name)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def _answer(self, http: web.Request, *, chat: bool) -> web.StreamResponse:
        try:
            body = await http.json()
        except (JSONDecodeError, UnicodeDecodeError) as error:
            raise protocol.RequestError(f"The body is not JSON: {error}.") from error
        request = protocol.parse(body, chat=chat, served_name=self._name)
        if not self._engine.loaded:
            raise EngineError("The model is still loading; send the request again soon.", 503)
        async with aclosing(self._engine.stream(request.options, request.usage)) as pieces:
            if request.stream:
                return await stream(http, request, pieces)
            return await whole(request, pieces)


async def whole(request: protocol.Request, pieces: AsyncGenerator[Piece, None]) -> web.Response:
    """Collect an answer and send it at once."""
    text, finish = "", ""
    async for piece in pieces:
        text += piece.text
        finish = piece.finish or finish
    return web.json_response(protocol.answer(request, text, finish))


async def stream(
    http: web.Request, request: protocol.Request, pieces: AsyncGenerator[Piece, None]
) -> web.StreamResponse:
    """Send an answer token by token; a refusal before the first one has its own status."""
    piece: Piece | None = await anext(pieces)
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    await response.prepare(http)
    if opening := protocol.first_chunk(request):
        await response.write(protocol.event(opening))
    try:
        while piece:
            await response.write(protocol.event(protocol.piece_chunk(request, piece)))
            piece = await anext(pieces, None)
    except EngineError as error:  # too late for a status: an error event, and no [DONE]
        await response.write(protocol.event(protocol.error(str(error), error.status)))
        return response
    if request.include_usage:
        await response.write(protocol.event(protocol.usage_chunk(request)))
    await response.write(protocol.event(None))
    return response


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every error OpenAI's form."""
    try:
        return await handler(request)
    except protocol.RequestError as error:
        body = protocol.error(str(error), error.status, error.param)
        return web.json_response(body, status=error.status)
    except EngineError as error:
        return web.json_response(protocol.error(str(error), error.status), status=error.status)
    except web.HTTPException as error:
        return web.json_response(protocol.error(error.reason, error.status), status=error.status)


async def serve(channel: socket.socket, *, served_name: str, port: int) -> bool:
    """Serve until SIGTERM or SIGINT, then end what is in flight. False if the worker died first."""
    engine = Engine(channel)
    reading = asyncio.create_task(engine.run())
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        Server(engine, served_name).application(),
        access_log=None,
        handler_cancellation=True,  # a client that leaves frees its place at once
        shutdown_timeout=DRAIN_SECONDS,
    )
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({reading, stopping}, return_when=asyncio.FIRST_COMPLETED)
    alive = not reading.done()
    await runner.cleanup()  # closes the port, then waits for the requests that run or wait
    for task in (reading, stopping):
        task.cancel()
    return alive
