"""A gateway on loopback, with real sockets for clients, engines and launchers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiohttp import web

from glowplug.api import Replica
from glowplug.gateway.gateway import Gateway
from glowplug.gateway.model import ServedModel
from glowplug.gateway.traffic import ModelTraffic

HOST = "127.0.0.1"
TOKENS = ("Par", "is", ".")


def event(content: str | None, *, role: str | None = None) -> bytes:
    delta = {"role": role, "content": content} if role else {"content": content}
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@dataclass
class Asked:
    """One request as an engine received it."""

    method: str
    target: str
    headers: dict[str, str]
    raw_head: bytes
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """What an engine's behaviour writes with; `die` resets the connection."""

    def __init__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        self.asked = asked
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, *fields: str) -> None:
        await self.send("\r\n".join([f"HTTP/1.1 {status} X", *fields, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def json(self, body: Any, status: int = 200) -> None:
        data = json.dumps(body).encode()
        await self.head(status, "Content-Type: application/json", f"Content-Length: {len(data)}")
        await self.send(data)

    async def events(self, *pieces: bytes, end: bool = True) -> None:
        await self.head(200, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        for piece in pieces:
            await self.chunk(piece)
            await asyncio.sleep(0)
        if end:
            await self.chunk(b"data: [DONE]\n\n")
            await self.send(b"0\r\n\r\n")

    def die(self) -> None:
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


async def chat(exchange: Exchange) -> None:
    """Answers as an OpenAI-compatible engine does."""
    if exchange.asked.json.get("stream"):
        await exchange.events(event("", role="assistant"), *(event(t) for t in TOKENS))
        return
    message = {"role": "assistant", "content": "".join(TOKENS)}
    await exchange.json(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": exchange.asked.json["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
    )


@dataclass
class Engine:
    """A real HTTP server whose answers a test scripts, down to the byte."""

    behaviour: Behaviour = chat
    healthy: bool = True
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    lost: int = 0  # connections that the gateway ended while an answer was under way
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def kill(self) -> None:
        """As a killed process: the port is closed and every connection reset."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = await _read(reader)
                if asked.target == "/health":
                    await Exchange(asked, writer).json({}, 200 if self.healthy else 503)
                    continue
                self.asked.append(asked)
                try:
                    await self.behaviour(Exchange(asked, writer))
                except ConnectionError:
                    self.lost += 1
                    raise
        self._writers.discard(writer)
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(method, target, headers, head, body)


class Launcher:
    """The /state endpoint of a launcher, long poll included."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.state: dict[str, Any] = {"seq": 1, "phase": "starting", "stages": []}
        self._moved = asyncio.Event()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/state", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()

    def say(self, phase: str, stage: str | None = None) -> None:
        stages = [{"name": stage, "start": 1.0, "end": None, "hidden": False}] if stage else []
        self.state = {"seq": self.state["seq"] + 1, "phase": phase, "stages": stages}
        self._moved.set()
        self._moved = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.Response:
        after = request.query.get("after")
        if after is not None and int(after) >= self.state["seq"]:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._moved.wait(), float(request.query["timeout"]))
        return web.json_response(self.state)


MODEL = ServedModel(
    namespace="ns",
    name="smol",
    served_name="smollm2",
    created=1.0,
    slots=16,
    max_hold=120.0,
    max_hold_plain=120.0,
    max_held=100,
)
REPLICA = Replica(
    pod_uid="pod-1",
    process=0,
    namespace="ns",
    model="smol",
    pod="smol-r-0",
    revision="r",
    ip=HOST,
    port=0,
    launcher_port=None,
    health_path="/health",
    metrics_path="/metrics",
    metrics=None,
    draining=False,
)


@dataclass
class Bench:
    """A running gateway, and what a test adds to it."""

    gateway: Gateway
    session: aiohttp.ClientSession
    stack: contextlib.AsyncExitStack

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.gateway.http_port}"

    @property
    def admin(self) -> str:
        return f"http://{HOST}:{self.gateway.admin_port}"

    def model(self, **changes: Any) -> ServedModel:
        model = replace(MODEL, **changes)
        self.gateway.fleet.put_model(model)
        return model

    def replica(self, engine: Engine | None, uid: str = "pod-1", **changes: Any) -> Replica:
        port = engine.port if engine is not None else 1
        replica = replace(REPLICA, pod_uid=uid, pod=f"smol-{uid}", **{"port": port} | changes)
        self.gateway.fleet.put_replica(replica, "image")
        return replica

    async def engine(self, behaviour: Behaviour = chat, **attributes: Any) -> Engine:
        engine = Engine(behaviour, **attributes)
        await engine.start()
        self.stack.callback(engine.kill)
        return engine

    async def launcher(self, port: int = 0) -> Launcher:
        launcher = Launcher(port)
        await launcher.start()
        self.stack.push_async_callback(launcher.stop)
        return launcher

    async def serving(self, behaviour: Behaviour = chat, uid: str = "pod-1") -> Engine:
        """An engine that is ready and known to be."""
        engine = await self.engine(behaviour)
        self.replica(engine, uid)
        traffic = self.gateway.fleet.traffic("ns/smol")
        await until(
            lambda: uid in {e.replica.pod_uid for e in traffic.engines.values() if e.usable}
        )
        return engine

    def post(self, path: str = "/v1/chat/completions", **body: Any) -> Any:
        return self.session.post(self.url + path, json={"model": "smollm2", "messages": []} | body)

    def usable(self) -> set[str]:
        """Pods that take requests now."""
        return {e.replica.pod_uid for e in self.traffic.engines.values() if e.usable}

    async def ask(self, **body: Any) -> tuple[int, bytes]:
        """Status and whole body of one chat request."""
        async with self.post(**body) as response:
            return response.status, await response.read()

    @property
    def traffic(self) -> ModelTraffic:
        return self.gateway.fleet.traffic("ns/smol")

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(HOST, self.gateway.http_port)
        self.stack.callback(writer.close)
        return reader, writer


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds
            await asyncio.sleep(0.005)
