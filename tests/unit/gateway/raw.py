"""HTTP as bytes, for tests that mind every one of them."""

from __future__ import annotations

import asyncio

BODY = b'{"model": "smollm2", "messages": []}'
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
PLAIN = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer, which must carry a Content-Length."""
    async with asyncio.timeout(60):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        return int(head.split()[1]), await reader.readexactly(int(fields[b"content-length"]))


async def read_all(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(60):
        return await reader.read()
