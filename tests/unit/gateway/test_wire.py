"""The client side's HTTP, byte by byte: framing, pipelining, limits, smuggling, slow readers."""

from __future__ import annotations

import asyncio

import pytest

from glowplug.gateway.proxy import Reply

from .bench import Bench, Exchange, chat, event, until
from .raw import BODY, HEAD, PLAIN, read_all, read_answer


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_requests_arrive_in_pieces_of_any_size(bench: Bench, size: int) -> None:
    bench.model()
    engine = await bench.serving()
    reader, writer = await bench.connect()
    for _ in range(2):  # the connection is kept
        for start in range(0, len(PLAIN), size):
            writer.write(PLAIN[start : start + size])
            await asyncio.sleep(0)
        assert (await read_answer(reader))[0] == 200
    assert [asked.body for asked in engine.asked] == [BODY, BODY]


async def test_a_chunked_request_reaches_the_engine_with_a_length(bench: Bench) -> None:
    bench.model()
    engine = await bench.serving()
    reader, writer = await bench.connect()
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (1, BODY[i : i + 1]) for i in range(len(BODY)))
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    writer.write(b"0\r\nX-Trailer: 1\r\n\r\n" + PLAIN)
    assert (await read_answer(reader))[0] == 200
    assert (await read_answer(reader))[0] == 200
    assert engine.asked[0].body == BODY
    assert engine.asked[0].headers["content-length"] == str(len(BODY))
    assert "x-trailer" not in engine.asked[0].headers


async def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    async def later_is_faster(exchange: Exchange) -> None:
        number = exchange.asked.json["n"]
        await asyncio.sleep(0.05 if number == 0 else 0)
        await exchange.json({"n": number})

    bench.model()
    await bench.serving(later_is_faster)
    reader, writer = await bench.connect()
    bodies = [b'{"model": "smollm2", "n": %d}' % n for n in range(20)]
    heads = [HEAD + b"Content-Length: %d\r\n\r\n" % len(body) for body in bodies]
    writer.write(b"".join(h + b for h, b in zip(heads, bodies, strict=True)))
    answers = [await read_answer(reader) for _ in bodies]
    assert answers == [(200, b'{"n": %d}' % n) for n in range(20)]


async def test_expect_continue_is_answered_before_the_body(bench: Bench) -> None:
    bench.model()
    await bench.serving()
    reader, writer = await bench.connect()
    writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY)
    assert (await read_answer(reader))[0] == 200


async def test_expect_continue_waits_for_the_answer_before_it(bench: Bench) -> None:
    release = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        await release.wait()
        await exchange.json({})

    bench.model()
    engine = await bench.serving(wait)
    reader, writer = await bench.connect()
    expecting = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    writer.write(PLAIN + expecting)
    await until(lambda: len(engine.asked) == 1)
    release.set()
    assert (await read_answer(reader))[0] == 200
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(BODY)
    assert (await read_answer(reader))[0] == 200


async def test_a_body_over_the_limit_is_refused_before_it_is_sent(bench: Bench) -> None:
    reader, writer = await bench.connect()
    writer.write(HEAD + b"Expect: 100-continue\r\nContent-Length: 1000001\r\n\r\n")
    status, body = await read_answer(reader)
    assert status == 413
    assert b"exceeds 1000000 bytes" in body
    assert await read_all(reader) == b""


async def test_a_chunked_body_over_the_limit_is_refused_while_it_comes(bench: Bench) -> None:
    reader, writer = await bench.connect()
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(20):
        writer.write(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
        await writer.drain()
    assert (await read_answer(reader))[0] == 413


SMUGGLED = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    b"Content-Length: 5, 5\r\n\r\n",
    b"Content-Length: +5\r\n\r\n",
    b"Content-Length: -1\r\n\r\n",
    b"Content-Length : 5\r\n\r\n",
    b"Transfer-Encoding: gzip\r\n\r\n",
    b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    b"X: a\r\n folded\r\n\r\n",
    b"X: a\x00b\r\n\r\n",
    b"X: a\rb\r\n\r\n",
    b"X: a\nContent-Length: 5\r\n\r\n",
    b"\x0bContent-Length: 5\r\n\r\n",
]


@pytest.mark.parametrize("rest", SMUGGLED)
async def test_ambiguous_framing_ends_the_connection(bench: Bench, rest: bytes) -> None:
    bench.model()
    engine = await bench.serving()
    reader, writer = await bench.connect()
    writer.write(HEAD + rest + PLAIN)
    answer = await read_all(reader)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert engine.asked == []


async def test_a_malformed_request_waits_for_the_answers_before_it(bench: Bench) -> None:
    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.05)
        await chat(exchange)

    bench.model()
    await bench.serving(slow)
    reader, writer = await bench.connect()
    writer.write(PLAIN + b"NONSENSE\r\n\r\n")
    assert (await read_answer(reader))[0] == 200
    assert (await read_answer(reader))[0] == 400


@pytest.mark.parametrize(
    "endless", [b"X: " + b"a" * 1000, b"X: " + b"a" * 995 + b"\r\n", b"GET /" + b"a" * 1000]
)
async def test_an_endless_head_is_refused(bench: Bench, endless: bytes) -> None:
    reader, writer = await bench.connect()
    writer.write(b"" if endless.startswith(b"GET") else HEAD)
    writer.write(endless)
    for _ in range(700):
        writer.write(endless if endless.endswith(b"\r\n") else b"a" * 1000)
        await asyncio.sleep(0)
    status, _ = await read_answer(reader)
    assert status == 431


async def test_an_endless_trailer_is_refused(bench: Bench) -> None:
    reader, writer = await bench.connect()
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ")
    for _ in range(200):
        writer.write(b"a" * 10_000)
        await asyncio.sleep(0)
    status, _ = await read_answer(reader)
    assert status == 400


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_upgrade_is_declined_and_its_body_read(bench: Bench, framing: str) -> None:
    """Java's HttpClient offers h2c with every request; the body is still the request's."""
    bench.model()
    engine = await bench.serving()
    reader, writer = await bench.connect()
    head = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    if framing == "length":
        request = head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    else:
        request = head + b"Transfer-Encoding: chunked\r\n\r\n"
        request += b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    writer.write(request + request)
    await asyncio.sleep(0.02)
    for byte in request:
        writer.write(bytes([byte]))
        await asyncio.sleep(0)
    for _ in range(3):
        assert (await read_answer(reader))[0] == 200
    assert [asked.body for asked in engine.asked] == [BODY] * 3
    assert "upgrade" not in engine.asked[0].headers


@pytest.mark.parametrize(
    ("fields", "kept"),
    [(b"", False), (b"Connection: keep-alive\r\n", True)],
)
async def test_http_10_clients_are_kept_only_when_they_ask(
    bench: Bench, fields: bytes, kept: bool
) -> None:
    bench.model()
    await bench.serving()
    reader, writer = await bench.connect()
    old = PLAIN.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\n" + fields)
    writer.write(old)
    assert (await read_answer(reader))[0] == 200
    if kept:
        writer.write(old)
        assert (await read_answer(reader))[0] == 200
    else:
        assert await read_all(reader) == b""


async def test_an_http_10_client_gets_a_stream_without_chunks(bench: Bench) -> None:
    bench.model()
    await bench.serving()
    reader, writer = await bench.connect()
    body = b'{"model": "smollm2", "stream": true}'
    head = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = await read_all(reader)
    assert b"transfer-encoding" not in answer.lower()
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_connection_close_is_kept(bench: Bench) -> None:
    bench.model()
    await bench.serving()
    reader, writer = await bench.connect()
    writer.write(PLAIN.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n") + PLAIN)
    answer = await read_all(reader)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"connection: close\r\n" in answer


async def test_a_slow_reader_slows_the_engine_down(bench: Bench) -> None:
    sent = 0
    total = 400

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.head(200, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        for _ in range(total):
            await exchange.chunk(event("x" * 100_000))
            sent += 1
        await exchange.send(b"0\r\n\r\n")

    bench.model()
    await bench.serving(flood)
    reader, writer = await bench.connect()
    writer.transport.pause_reading()
    body = b'{"model": "smollm2", "stream": true}'
    writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    before = -1
    while sent != before or sent == 0:
        before = sent
        await asyncio.sleep(0.3)
    assert sent < total
    writer.transport.resume_reading()
    read = 0
    async with asyncio.timeout(120):
        while sent < total or read < total * 100_000:
            piece = await reader.read(1_000_000)
            assert piece
            read += len(piece)


class FakeOutlet:
    """Records what a Reply does to its connection."""

    def __init__(self) -> None:
        self.written = b""
        self.ended: list[str] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.ended.append("close")

    def abort(self) -> None:
        self.ended.append("abort")


@pytest.mark.parametrize("body", [b"short", b"longer than promised"])
def test_a_body_of_another_length_than_promised_is_never_whole(body: bytes) -> None:
    outlet = FakeOutlet()
    reply = Reply(outlet, http11=True, keep_alive=True)
    reply.start(200, [], 10)
    reply.write(body)
    reply.finish()
    assert outlet.ended == ["abort"]
    assert not reply.whole


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_body_carries_no_framing(status: int) -> None:
    outlet = FakeOutlet()
    reply = Reply(outlet, http11=True, keep_alive=True)
    reply.start(status, [])
    reply.finish()
    assert outlet.written.endswith(b"\r\n\r\n")
    assert b"content-length" not in outlet.written
    assert b"chunked" not in outlet.written
    assert reply.whole
