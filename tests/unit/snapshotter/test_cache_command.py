"""The command `glowplug-snapshotter cache` as a process: killed, ended, told nonsense."""

import asyncio
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from glowplug_snapshotter.restore import Request, restore

from .caches import CHUNK, SECRET, Snapshot, publish
from .tools import snapshotter, start, wait_for
from .web import Fault, Web

CHUNKS = 60


@pytest.fixture
def snapshot(web: Web) -> Snapshot:
    return publish(web.root, {"model.safetensors": CHUNKS * CHUNK})


@contextmanager
def daemon(web: Web, folder: Path, ports: tuple[int, int]) -> Iterator[subprocess.Popen]:
    """A daemon that answers."""
    (folder / "key").write_bytes(SECRET)
    process = start(
        *("cache", "--store", web.url, "--directory", folder / "cache", "--budget", "1Gi"),
        *("--host", "127.0.0.1", "--port", ports[0], "--peer-port", ports[1]),
        *("--key-file", folder / "key"),
    )
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{ports[1]}/healthz"), 60)
        yield process
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


async def test_a_daemon_killed_in_the_middle_goes_on_where_it_was(
    web: Web, snapshot: Snapshot, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    ports = free_port(), free_port()
    cache = f"http://127.0.0.1:{ports[0]}"
    request = Request(web.url, "snapshot", snapshot.digest, None, tmp_path / "to", cache)
    web.fault = lambda path, first, number: Fault(pause=0.05)
    with daemon(web, tmp_path, ports) as process:
        restoring = asyncio.create_task(asyncio.to_thread(restore, request, lambda event: None))
        await asyncio.to_thread(wait_for, lambda: len(web.requests) > CHUNKS / 2, 60)
        process.kill()
        await restoring
    assert (tmp_path / "to" / "model.safetensors").read_bytes() == snapshot.files[
        "model.safetensors"
    ]
    web.requests.clear()
    again = Request(web.url, "snapshot", snapshot.digest, None, tmp_path / "again", cache)
    with daemon(web, tmp_path, ports):
        await asyncio.to_thread(restore, again, lambda event: None)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == snapshot.files[
        "model.safetensors"
    ]
    assert len(web.requests) <= CHUNKS * 0.75, "what was proved before the kill is kept"


def test_told_to_end_it_ends_in_good_order(
    web: Web, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    with daemon(web, tmp_path, (free_port(), free_port())) as process:
        assert (tmp_path / "cache" / "running").exists()
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(30) == 0
        assert time.monotonic() - began < 20
    assert not (tmp_path / "cache" / "running").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--budget", "lots"), "400Gi"),
        (("--budget", "1Gi", "--peers-service", "caches"), "NAMESPACE/NAME"),
        (("--budget", "1Gi", "--key-file", "/nowhere"), "/nowhere cannot be read"),
        (("--budget", "1Gi", "--store", "ftp://x"), "is not a model's address"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    ended = snapshotter("cache", "--store", "http://127.0.0.1:1", "--directory", tmp_path, *words)
    assert ended.status != 0
    assert said in ended.stderr + str(ended.events)
