"""HTTP to the API server: credentials, TLS and connections from kubernetes.aio, our own retries.

Bodies stay plain dicts: turning them into the client library's model classes costs more than the
request does.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME, SERVICE_TOKEN_FILENAME

from glowplug.kube.errors import ApiError, TooManyRequests, Unreachable, error_from

Json = dict[str, Any]

ATTEMPTS = 4
REQUEST_TIMEOUT = 30.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_NEVER_SENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_TRANSIENT = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    query: Mapping[str, str]
    body: object = None
    content_type: str = "application/json"


class _Rest(RESTClientObject):
    """The library's client on sockets whose kernel notices a dead peer within half a minute."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            limit=self.maxsize, ssl=self.ssl_context, socket_factory=_kept_alive
        )


def _kept_alive(address: Any) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return made


class Transport:
    """Authenticated requests to one API server, retried where that cannot do harm."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._rest = _Rest(configuration)
        self._refresh: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Transport:
        """Read the named kubeconfig; else the Pod's service account; else the user's kubeconfig."""
        configuration = Configuration()
        if kubeconfig is None and _in_pod():
            kube_config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
            return cls(configuration)
        loader = await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig, client_configuration=configuration, persist_config=False
        )
        transport = cls(configuration)
        if loader._user is not None:
            # Tokens of exec plugins and of GCP expire; the library's task renews them.
            transport._refresh = asyncio.create_task(
                kube_config.refresh_token(loader, configuration)  # type: ignore[no-untyped-call]
            )
        return transport

    async def close(self) -> None:
        """Close all connections."""
        if self._refresh is not None:
            self._refresh.cancel()
        await self._rest.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        idempotent: bool = True,
        timeout: float = REQUEST_TIMEOUT,
    ) -> Json:
        """Send one request and return the decoded answer; raises `ApiError`.

        Idempotent requests are tried up to ATTEMPTS times when the server is overloaded or the
        connection is lost. Others are only when the server said 429 or was never reached.
        """
        request = _Request(method, path, query or {}, body, content_type)
        attempt = 1
        while True:
            try:
                return await self._once(request, timeout)
            except ApiError as error:
                if attempt == ATTEMPTS or not _may_retry(error, idempotent):
                    raise
                await asyncio.sleep(_pause(attempt, error.retry_after))
            attempt += 1

    async def read(self, path: str, query: Mapping[str, str], *, timeout: float) -> bytes:
        """Return the body of one GET as it came, tried once; raises `ApiError`."""
        return await self._body(_Request("GET", path, query), timeout)

    async def _once(self, request: _Request, timeout: float) -> Json:
        data = await self._body(request, timeout)
        decoded = orjson.loads(data) if data else {}
        return decoded if isinstance(decoded, dict) else {}

    async def _body(self, request: _Request, timeout: float) -> bytes:
        try:
            response = await self._send(request, aiohttp.ClientTimeout(total=timeout))
            async with response:
                data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if response.status >= 400:
            raise error_from(response.status, data, response.headers.get("Retry-After"))
        return data

    async def lines(
        self, path: str, query: Mapping[str, str], *, silence: float
    ) -> AsyncGenerator[bytes, None]:
        """Yield the complete lines of a streamed answer; a last line cut short is dropped.

        Ends when the server ends the stream. Raises `Unreachable` when the connection is lost or
        nothing came for `silence` seconds, and `ApiError` when the request was refused.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=silence)
        try:
            response = await self._send(_Request("GET", path, query), timeout)
            async with response:
                if response.status >= 400:
                    data = await response.read()
                    raise error_from(response.status, data, response.headers.get("Retry-After"))
                rest = b""
                async for chunk in response.content.iter_any():
                    *complete, rest = (rest + chunk).split(b"\n")
                    for line in complete:
                        yield line
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def _send(
        self, request: _Request, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        url = self._configuration.host + request.path
        if request.query:
            url += "?" + urlencode(request.query)
        headers = {"Content-Type": request.content_type, "Accept": "application/json"}
        token = (await self._configuration.auth_settings()).get("BearerToken")
        if token and token["value"]:
            headers["Authorization"] = token["value"]
        answer = await self._rest.request(  # type: ignore[no-untyped-call]
            request.method, url, headers=headers, body=request.body, _request_timeout=timeout
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    def _unreachable(self, error: BaseException) -> Unreachable:
        what = str(error) or type(error).__name__
        failure = Unreachable(
            0, "Unreachable", f"no answer from {self._configuration.host}: {what}"
        )
        failure.never_sent = isinstance(error, _NEVER_SENT)
        return failure


def _in_pod() -> bool:
    return SERVICE_HOST_ENV_NAME in os.environ and Path(SERVICE_TOKEN_FILENAME).exists()


def _may_retry(error: ApiError, idempotent: bool) -> bool:
    if isinstance(error, TooManyRequests):
        return True
    if isinstance(error, Unreachable):
        return idempotent or error.never_sent
    return idempotent and error.status in _TRANSIENT


def _pause(attempt: int, retry_after: float | None) -> float:
    if retry_after is not None:
        return min(retry_after, _LONGEST_PAUSE)
    return float(_FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
