"""The restore's parts by themselves: pace, order, ranges, second requests, files, signatures."""

import os
import threading
from pathlib import Path

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from glowplug_snapshotter.backends import Entry, Ticket
from glowplug_snapshotter.backends.sigv4 import Keys, sign
from glowplug_snapshotter.checksum import crc32c
from glowplug_snapshotter.chunks import ranges
from glowplug_snapshotter.destinations.files import BLOCK, DirectFile, PlainFile
from glowplug_snapshotter.destinations.mapped import HUGE, MappedFile
from glowplug_snapshotter.errors import SnapshotError, TransientError
from glowplug_snapshotter.fetch import Fetch, Usual
from glowplug_snapshotter.launcher.weights import file_system
from glowplug_snapshotter.pace import WINDOW, Pace
from glowplug_snapshotter.plan import Item, in_order

MB = 2**20


def settle(pace: Pace, rate_at, seconds: float = 120.0) -> list[int]:
    """Let time pass with throughput `rate_at(limit)` in ranges of 1 MB/s; return the limits."""
    now, seen = 0.0, []
    while now < seconds:
        now += 1 / rate_at(pace.limit)
        pace.done(MB, now)
        seen.append(pace.limit)
    return seen


@pytest.mark.parametrize(
    ("name", "rate_at", "low", "high"),
    [
        ("a network that 24 connections fill", lambda n: min(24, n) * 5.0, 20, 32),
        ("a network that one connection fills", lambda n: 100.0, 1, 8),
        ("a disk that seeks", lambda n: 100.0 if n <= 2 else 100.0 / (n - 1), 1, 6),
    ],
)
def test_the_number_of_requests_suits_the_store(name: str, rate_at, low: int, high: int) -> None:
    seen = settle(Pace(4, 64, 0.0), rate_at)
    late = seen[len(seen) * 3 // 4 :]
    assert low <= sum(late) / len(late) <= high, name


def test_a_store_that_says_slow_down_gets_half_and_the_bounds_hold() -> None:
    pace = Pace(8, 16, 0.0)
    pace.slow_down(1.0)
    pace.slow_down(1.0 + WINDOW / 10)
    assert pace.limit == 4, "many words at once count once"
    for n in range(20):
        pace.slow_down(10.0 + n)
    assert pace.limit == 1
    seen = settle(Pace(8, 16, 0.0), lambda n: 10.0 * n)
    assert max(seen) == 16
    assert min(seen) >= 1


def test_configuration_comes_first_and_shards_by_number() -> None:
    names = ["model-10.safetensors", "model-2.safetensors", "config.json", "tokenizer.json"]
    items = [Item(name, Entry(name, 1), None) for name in names]
    assert [item.path for item in in_order(items)] == [
        "config.json",
        "tokenizer.json",
        "model-2.safetensors",
        "model-10.safetensors",
    ]


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [1, 5 * MB, 16 * MB, 16 * MB - 1])
def test_ranges_cover_a_chunk_once(length: int, parts: int) -> None:
    found = ranges(length, parts)
    assert [at for at, _ in found] == [sum(n for _, n in found[:i]) for i in range(len(found))]
    assert sum(n for _, n in found) == length
    assert len(found) <= parts
    assert all(n >= 2 * MB for _, n in found[:-1])


class Scripted:
    """A reader whose first request waits to be given up, and whose second one answers."""

    streams = 1

    def __init__(self, *, second: Exception | None = None) -> None:
        self.asked = 0
        self.second = second
        self.waiting = threading.Event()

    def read_into(self, entry: Entry, offset: int, view: memoryview, ticket: Ticket) -> None:
        self.asked += 1
        if self.asked == 1:
            ended = threading.Event()
            with ticket.interruptible(ended.set):
                self.waiting.set()
                ended.wait(60)
            raise TransientError("given up" if ticket.given_up else "timed out")
        if self.second is not None:
            raise self.second
        view[:] = b"\x07" * len(view)


def start_fetch(reader: Scripted) -> tuple[Fetch, threading.Thread, list]:
    fetch = Fetch(reader, Entry("a", 8), 0, memoryview(bytearray(8)))
    ended: list = []

    def run() -> None:
        try:
            fetch.run()
            ended.append(bytes(fetch.view))
        except SnapshotError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert reader.waiting.wait(30)
    return fetch, thread, ended


def test_a_lagging_request_is_overtaken_by_a_second_one() -> None:
    reader, freed = Scripted(), threading.Event()
    fetch, thread, ended = start_fetch(reader)
    assert fetch.double(memoryview(bytearray(64)), freed.set)
    assert not fetch.double(memoryview(bytearray(64)), lambda: None), "never a third"
    thread.join(30)
    assert ended == [b"\x07" * 8]
    assert freed.wait(30), "its buffer is given back"
    assert not fetch.double(memoryview(bytearray(64)), lambda: None), "it is over"


def test_a_second_request_that_fails_changes_nothing() -> None:
    reader, freed = Scripted(second=TransientError("busy")), threading.Event()
    fetch, thread, ended = start_fetch(reader)
    assert fetch.double(memoryview(bytearray(64)), freed.set)
    assert thread.is_alive()
    fetch.cancel()
    thread.join(30)
    assert ended[0].message == "given up"
    assert freed.wait(30)


def test_late_is_what_takes_many_times_the_usual() -> None:
    usual = Usual()
    assert not usual.is_late(4.0, 100)
    assert usual.is_late(6.0, 100)
    for _ in range(9):
        usual.add(1.0, 100)
    assert not usual.is_late(3.5, 100)
    assert usual.is_late(4.5, 100)
    assert not usual.is_late(4.5, 200), "twice the bytes may take twice the time"
    for _ in range(40):
        usual.add(0.001, 100)
    assert not usual.is_late(0.9, 100), "what is quick anyway is never late"


@pytest.mark.parametrize("token", [None, "session+token/=="])
@pytest.mark.parametrize(
    "path", ["bucket/blobs/abc", "bucket/a%20b/%C3%A4%2B%25.txt", "bucket/with~tilde"]
)
def test_signatures_are_those_of_boto(path: str, token: str | None) -> None:
    url = f"http://127.0.0.1:8333/{path}"
    request = AWSRequest("GET", url)
    S3SigV4Auth(Credentials("key", "secret", token), "s3", "eu-west-1").add_auth(request)
    stamp = request.context["timestamp"]
    from calendar import timegm
    from time import strptime

    now = timegm(strptime(stamp, "%Y%m%dT%H%M%SZ"))
    ours = sign(url, Keys("key", "secret", token), "eu-west-1", now)
    theirs = {name.lower(): value for name, value in request.headers.items()}
    assert ours["x-amz-date"] == theirs["x-amz-date"]
    assert ours["Authorization"].replace(",", ", ") == theirs["authorization"]


@pytest.mark.parametrize("size", [1, BLOCK, 5 * MB + 1, 8 * MB, 8 * MB + BLOCK])
@pytest.mark.parametrize("kind", [PlainFile, DirectFile])
def test_files_are_written_whole_whatever_their_end(
    tmp_path: Path, kind: type[PlainFile], size: int
) -> None:
    import mmap

    data = os.urandom(size)
    named: list[bool] = []
    file = kind(tmp_path / "x", size, lambda: named.append(True), durable=True)
    memory = memoryview(mmap.mmap(-1, 4 * MB))
    for at in reversed(range(0, size, 4 * MB)):
        piece = data[at : at + 4 * MB]
        memory[: len(piece)] = piece
        file.write(memory[: len(piece)], at)
    back = bytearray(size)
    file.read(memoryview(back), 0)
    assert back == data
    file.commit()
    file.close()
    assert named
    assert (tmp_path / "x").read_bytes() == data


def test_memory_that_cannot_be_written_directly_is_written_plainly(tmp_path: Path) -> None:
    file = DirectFile(tmp_path / "x", 2 * BLOCK, lambda: None, durable=False)
    unaligned = memoryview(bytearray(2 * BLOCK + 1))[1:]
    unaligned[:] = b"z" * len(unaligned)
    file.write(unaligned, 0)
    file.close()
    assert (tmp_path / "x").read_bytes() == b"z" * 2 * BLOCK


@pytest.mark.parametrize("length", [HUGE, 4 * HUGE, 2 * HUGE + 5, HUGE - 1])
def test_a_mapped_chunk_is_the_files_own_memory(tmp_path: Path, length: int) -> None:
    place = Path("/dev/shm") / f"glowplug-test-{os.getpid()}-{length}"
    assert file_system("/dev/shm") == "tmpfs"
    file = MappedFile(place, HUGE + length, lambda: None, durable=False)
    try:
        assert file.room(4096, HUGE) is None, "only aligned chunks"
        room = file.room(HUGE, length)
        data = os.urandom(length)
        if room is None:  # too small, or this kernel makes no huge pages now: written instead
            file.write(memoryview(data), HUGE)
        else:
            assert length >= HUGE
            room.view[:] = data
            assert crc32c(room.view) == crc32c(data)
            room.close()
        assert place.read_bytes() == b"\0" * HUGE + data
    finally:
        file.close()
        place.unlink()
