"""Glowplug's own samples of benchmarks/restore.py, and what the machine allows at most."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from restore_child import CORES, MIB, Job, Tool, UnsuitableError, main

if TYPE_CHECKING:
    from glowplug_snapshotter.destinations import Room, Target
    from glowplug_snapshotter.plan import Item, Plan

Work = Callable[[], object]
BUFFER = 16 * MIB


class Nowhere:
    """A destination that forgets: what the ring proved is thrown away."""

    def prepare(self, plan: Plan) -> None:
        """Nothing to prepare."""

    def open(self, item: Item) -> Target:
        """Return what forgets."""
        return self

    def buffer(self, size: int) -> memoryview:
        """Return pages."""
        return memoryview(mmap.mmap(-1, size))

    def room(self, offset: int, length: int) -> Room | None:
        """Return None: the bytes are written."""
        return None

    def recorded(self, chunk: int) -> int | None:
        """Return None: nothing is there."""
        return None

    def record(self, chunk: int, crc: int) -> None:
        """Forget."""

    def write(self, view: memoryview, offset: int) -> None:
        """Forget."""

    def read(self, view: memoryview, offset: int) -> None:
        """Never asked for."""
        raise NotImplementedError

    def commit(self) -> None:
        """Nothing to name."""

    def close(self) -> None:
        """Nothing to close."""

    suspend = abandon = close


def glowplug(job: Job) -> Work:
    """Restore a snapshot, every chunk proved; local: hand its tensors over in memory."""
    url = f"s3://{job.bucket}"
    endpoint = f"http://{job.endpoint}"
    if not job.endpoint:
        from glowplug_snapshotter import load

        store = Path(job.files[0]).parent.parent / "store"
        return lambda: list(load(f"file://{store}", digest=job.digest, framework="dlpack"))
    from glowplug_snapshotter.backends import s3  # else in the clock, where Python imports late
    from glowplug_snapshotter.plan import plan_snapshot
    from glowplug_snapshotter.restore import Request, restore
    from glowplug_snapshotter.ring import Ring

    del s3
    if job.to is None:

        def drop() -> None:
            plan = plan_snapshot(url, job.digest, endpoint)
            Ring(plan, Nowhere(), lambda path: None).run(lambda done: None)

        return drop
    request = Request(url, "snapshot", job.digest, endpoint, Path(job.to))
    return lambda: restore(request, lambda event: None)


def glowplug_plain(job: Job) -> Work:
    """Load a directory of safetensors, which nothing proves, as the peers do."""
    if job.endpoint:
        raise UnsuitableError("proves what it restores; unproved only from a local directory")
    from glowplug_snapshotter import load

    folder = Path(job.files[0]).parent
    return lambda: list(load(folder, framework="dlpack"))


def receive(job: Job, number: int, buffer: memoryview) -> Iterator[memoryview]:
    """Yield the views of one reused buffer, full, as an object's bytes arrive in it."""
    host, port = job.endpoint.split(":")
    with contextlib.closing(socket.create_connection((host, int(port)))) as connection:
        path = f"/{job.bucket}/{job.keys[number]}"
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {job.endpoint}\r\nConnection: close\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise UnsuitableError(head.split(b"\r\n")[0].decode())
        left = job.sizes[number]
        while left:
            view, filled = buffer[: min(len(buffer), left)], 0
            while filled < len(view):
                count = connection.recv_into(view[filled:])
                if not count:
                    raise RuntimeError("the body was cut")
                filled += count
            left -= filled
            yield view


def private(size: int, advice: int = mmap.MADV_NORMAL) -> mmap.mmap:
    """Return untouched memory; that which is shared, mmap's default, obeys no advice."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(advice)
    return memory


def pages(size: int = BUFFER) -> memoryview:
    """Return touched, page-aligned memory."""
    view = memoryview(private(size))
    for at in range(0, size, mmap.PAGESIZE):
        view[at] = 1
    return view


def threads(job: Job, count: int, work: Callable[[int, memoryview], object]) -> Work:
    """Have each of `count` threads, with a buffer of its own, take one object after the other."""
    buffers = [pages() for _ in range(count)]

    def run() -> None:
        def take(number: int) -> None:
            buffer = buffers.pop()
            try:
                work(number, buffer)
            finally:
                buffers.append(buffer)

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(take, range(len(job.keys))))

    return run


def recv(job: Job, count: int = 1) -> Work:
    return threads(job, count, lambda number, buffer: list(map(len, receive(job, number, buffer))))


def target(job: Job, number: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | (os.O_DIRECT if job.sync else 0)
    fd = os.open(job.target(number), flags, 0o644)
    os.ftruncate(fd, job.sizes[number])
    return fd


def store(fd: int, view: memoryview, offset: int) -> None:
    if len(view) % mmap.PAGESIZE:  # the end of a file; O_DIRECT takes whole pages
        os.set_blocking(fd, True)
        path = f"/proc/self/fd/{fd}"
        with open(path, "r+b", buffering=0) as plain:
            os.pwrite(plain.fileno(), view, offset)
    else:
        os.pwrite(fd, view, offset)


def write(job: Job) -> Work:
    """Write as many bytes from reused buffers; no network."""

    def fill(number: int, buffer: memoryview) -> None:
        fd = target(job, number)
        for at in range(0, job.sizes[number], len(buffer)):
            store(fd, buffer[: job.sizes[number] - at], at)
        os.close(fd)

    return threads(job, CORES, fill)


def recv_write(job: Job) -> Work:
    """Receive into reused buffers and write them, nothing proved."""

    def bring(number: int, buffer: memoryview) -> None:
        fd, at = target(job, number), 0
        for view in receive(job, number, buffer):
            store(fd, view, at)
            at += len(view)
        os.close(fd)

    return threads(job, CORES, bring)


def read(job: Job, flags: int = 0) -> Work:
    """Read the files into reused buffers."""

    def through(number: int, buffer: memoryview) -> None:
        fd = os.open(job.files[number], os.O_RDONLY | flags)
        while os.readv(fd, [buffer]):
            pass
        os.close(fd)

    return threads(job, CORES, through)


def read_kept(job: Job) -> Work:
    """Read the files into new memory, all of it kept."""

    def run() -> object:
        kept = [private(size) for size in job.sizes]

        def fill(number: int) -> None:
            view, at = memoryview(kept[number]), 0
            with open(job.files[number], "rb", buffering=0) as file:
                while count := file.readinto(view[at : at + BUFFER]):
                    at += count

        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(fill, range(len(job.files))))
        return kept

    return run


def touch(job: Job, advice: int) -> Work:
    memory = private(sum(job.sizes), advice)
    page = b"\1" * (2 * MIB)

    def run() -> None:
        for at in range(0, len(memory) - len(page) + 1, len(page)):
            memory[at : at + len(page)] = page

    return run


TOOLS: dict[str, Tool] = {
    "glowplug": glowplug,
    "glowplug-plain": glowplug_plain,
    "limit-recv": recv,
    "limit-recv-each-core": lambda job: recv(job, CORES),
    "limit-write": write,
    "limit-recv-write": recv_write,
    "limit-read": read,
    "limit-read-direct": lambda job: read(job, os.O_DIRECT),
    "limit-read-kept": read_kept,
    "limit-touch-4k": lambda job: touch(job, mmap.MADV_NOHUGEPAGE),
    "limit-touch-huge": lambda job: touch(job, mmap.MADV_HUGEPAGE),
}

if __name__ == "__main__":
    main(TOOLS)
