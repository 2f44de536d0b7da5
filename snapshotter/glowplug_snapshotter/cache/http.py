"""A small HTTP/1.1 server: GET, HEAD and POST without bodies, kept connections, sendfile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

log = logging.getLogger(__name__)

HEAD_LIMIT = 16 * 1024
IDLE = 75.0  # s that a connection is kept without a request
STALL = 60.0  # s that a client may take none of the bytes sent to it
_REQUEST = re.compile(r"(GET|HEAD|POST) (/\S*) HTTP/1\.1")


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `target` as it was sent, `headers` by lower-case name."""

    method: str
    target: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(urlsplit(self.target).path)

    def query(self, name: str) -> str | None:
        """A parameter's first value."""
        return parse_qs(urlsplit(self.target).query).get(name, [None])[0]


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes of an open file, sent by sendfile."""

    fd: int
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: `text` whole, or `length` bytes in `pieces`.

    An exception in `pieces` before the first byte becomes its own answer by `Server.explain`, one
    later cuts the connection: the length was promised.
    """

    status: int
    text: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    pieces: AsyncGenerator[Slice | memoryview] | None = None
    length: int = 0


Handler = Callable[[Request], Awaitable[Answer]]


class Server:
    """Serves one port; `explain` turns a handler's exception into an answer."""

    def __init__(
        self, handler: Handler, explain: Callable[[Exception], Answer], most: int = 1024
    ) -> None:
        self._handler = handler
        self._explain = explain
        self._most = most
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str | None, port: int) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=HEAD_LIMIT)

    async def close(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= self._most:
            writer.close()
            return
        self._connections.add(task)
        try:
            while await self._serve_one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError):
            pass
        except asyncio.CancelledError:  # by `close`; nobody waits to hear it
            pass
        except Exception:
            log.exception("a request failed")
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(IDLE):
            head = await reader.readuntil(b"\r\n\r\n")
        request = _parse(head.decode("latin-1"))
        if request is None or int(request.headers.get("content-length", "0") or 0):
            await self._send(writer, Answer(400, b"This is not a request that can be answered.\n"))
            return False
        try:
            answer = await self._handler(request)
            await self._send(writer, answer, bare=request.method == "HEAD")
        except _NotBegunError as error:
            await self._send(writer, self._explain(error.cause))
        except (OSError, TimeoutError):
            raise
        except _TornError:
            return False
        except Exception as error:
            await self._send(writer, self._explain(error))
        return request.headers.get("connection", "").lower() != "close"

    async def _send(
        self, writer: asyncio.StreamWriter, answer: Answer, *, bare: bool = False
    ) -> None:
        length = answer.length if answer.pieces is not None else len(answer.text)
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        head = "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode("latin-1")
        if answer.pieces is None or bare:
            writer.write(head + (b"" if bare else answer.text))
            await _drained(writer)
            return
        begun = False
        async with contextlib.aclosing(answer.pieces) as pieces:
            try:
                async for piece in pieces:
                    if not begun:
                        writer.write(head)
                        begun = True
                    await _send_piece(writer, piece)
            except (OSError, TimeoutError):
                raise
            except Exception as error:
                raise (_TornError if begun else _NotBegunError)(error) from None
        if not begun:
            writer.write(head)
            await _drained(writer)


class _NotBegunError(Exception):
    """The pieces failed before a byte was sent."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _TornError(_NotBegunError):
    """The pieces failed after bytes were sent."""


async def _send_piece(writer: asyncio.StreamWriter, piece: Slice | memoryview) -> None:
    if isinstance(piece, memoryview):
        writer.write(piece)
        await _drained(writer)
        return
    loop = asyncio.get_running_loop()
    with os.fdopen(piece.fd, "rb", buffering=0, closefd=False) as file:
        async with asyncio.timeout(STALL):
            await loop.sendfile(writer.transport, file, piece.offset, piece.count)


async def _drained(writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(STALL):
        await writer.drain()


def _parse(head: str) -> Request | None:
    first, *rest = head.split("\r\n")[:-2]
    found = _REQUEST.fullmatch(first)
    pairs = [line.partition(":") for line in rest]
    if found is None or not all(colon for _, colon, _ in pairs):
        return None
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if not headers.get("content-length", "0").isdigit() or "transfer-encoding" in headers:
        return None
    return Request(found[1], found[2], headers)
