"""An API server that misbehaves on request: what a real one cannot be made to show."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from glowplug.kube import Client


def config_map(name: str, version: int, *, uid: str | None = None, **data: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "namespace": "default",
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
        },
        "data": data,
    }


def event(kind: str, obj: dict) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


class FaultyApi:
    """Answers lists from `objects`; each watch plays the next script of `watches`.

    A script is a list of bytes to send, then "end", "cut" or "hang" (the default); or an int, an
    HTTP status to refuse the watch with. `failures` are statuses for the next non-watch requests.
    """

    def __init__(self) -> None:
        self.objects: list[dict] = []
        self.version = 100
        self.watches: list[list[bytes | str] | int] = []
        self.failures: list[int | str] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._hang = asyncio.Event()

    def asked(self, verb: str) -> list[dict[str, str]]:
        return [query for method, _, query in self.requests if method == verb]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        verb = "WATCH" if "watch" in query else request.method
        self.requests.append((verb, request.path, query))
        if verb == "WATCH":
            return await self._watch(request)
        if self.failures:
            return self._fail(request, self.failures.pop(0))
        if request.method != "GET":
            return web.json_response(await request.json())
        start = int(query.get("continue", "0"))
        stop = start + 2  # pages of two, whatever limit says
        meta = {"resourceVersion": str(self.version)}
        if stop < len(self.objects):
            meta["continue"] = str(stop)
        return web.json_response({"metadata": meta, "items": self.objects[start:stop]})

    def _fail(self, request: web.Request, failure: int | str) -> web.Response:
        if failure == "cut":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        body = {"kind": "Status", "code": failure, "message": "refused by the test", "reason": "T"}
        return web.json_response(body, status=failure)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        script = self.watches.pop(0) if self.watches else []
        if isinstance(script, int):
            return self._fail(request, script)
        response = web.StreamResponse()
        await response.prepare(request)
        for step in script:
            if isinstance(step, bytes):
                await response.write(step)
            elif step == "cut":
                await asyncio.sleep(0.02)  # let the bytes before the cut leave
                assert request.transport is not None
                request.transport.abort()
                return response
            elif step == "end":
                return response
        await self._hang.wait()
        return response

    def stop(self) -> None:
        self._hang.set()


@pytest.fixture
async def api() -> AsyncIterator[FaultyApi]:
    faulty = FaultyApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", faulty.handle)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    faulty.url = str(server.make_url(""))
    yield faulty
    faulty.stop()
    await server.close()


@pytest.fixture
async def client(api: FaultyApi, tmp_path: Path) -> AsyncIterator[Client]:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [{"name": "test", "cluster": {"server": api.url}}],
                "users": [{"name": "test", "user": {"token": "secret"}}],
            }
        )
    )
    made = await Client.connect(str(kubeconfig))
    yield made
    await made.close()
