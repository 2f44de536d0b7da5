"""A store whose users take turns, one request at a time, in an order that the test decides."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.bucket import Stored
from glowplug_snapshotter.checksum import blake3

T = TypeVar("T")


class Killed(BaseException):
    """The actor's process is gone."""


class Memory:
    """The objects, and the store's clock, which stands still unless somebody waits."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.now = 1e9


class Actor:
    """Somebody who uses the store from a thread; a Bucket whose requests wait for their turn."""

    def __init__(self, memory: Memory, work: Callable[["Actor"], object]) -> None:
        self._memory = memory
        self._work = work
        self._lock = threading.Lock()
        self._arrived = threading.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._killed = False
        self.ended = False
        self.error: BaseException | None = None
        threading.Thread(target=self._run, daemon=True).start()
        self._await()

    def turn(self) -> None:
        """Let one request through, and wait until the next one stands in line, or none will."""
        self._go.release()
        self._await()

    def kill(self) -> None:
        self._killed = True
        while not self.ended:
            self.turn()

    def finish(self) -> None:
        while not self.ended:
            self.turn()
        if self.error is not None:
            raise self.error

    def _await(self) -> None:
        assert self._arrived.acquire(timeout=120), "the actor hangs"

    def _run(self) -> None:
        try:
            self._work(self)
        except Killed:
            pass
        except BaseException as error:
            self.error = error
        self.ended = True
        self._arrived.release()

    def _request(self, act: Callable[[], T]) -> T:
        with self._lock:
            if not self._killed:
                self._arrived.release()
                self._go.acquire()
            if self._killed:
                raise Killed
            return act()

    # Bucket

    def describe(self, path: str) -> str:
        return f"memory://{path}"

    def put(self, path: str, data: bytes | bytearray) -> None:
        stored = (bytes(data), self._memory.now)
        self._request(lambda: self._memory.objects.__setitem__(path, stored))

    def get(self, path: str) -> bytes | None:
        return self._request(lambda: self._memory.objects.get(path, (None, 0))[0])

    def head(self, path: str) -> Stored | None:
        return self._request(lambda: self._stored(path))

    def list(self, folder: str) -> list[Stored]:
        return self._request(
            lambda: [
                stored
                for path in sorted(self._memory.objects)
                if path.startswith(f"{folder}/") and (stored := self._stored(path))
            ]
        )

    def delete(self, paths: Sequence[str]) -> None:
        for path in paths:  # one by one: S3 promises no more
            self._request(lambda path=path: self._memory.objects.pop(path, None))

    def _stored(self, path: str) -> Stored | None:
        data, modified = self._memory.objects.get(path, (None, 0.0))
        return None if data is None else Stored(path, len(data), modified, blake3(data).hexdigest())

    # clocks

    def time(self) -> float:
        return self._memory.now

    def wait(self, seconds: float) -> None:
        self._memory.now += 30 * seconds


class Files:
    """A source of small files, pinned."""

    streams = 1

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    def describe(self, path: str) -> str:
        return f"files:///{path}"

    def revision(self) -> None:
        return None

    def entries(self) -> list[Entry]:
        return [Entry(path, len(data), "v1") for path, data in self._files.items()]

    def read_into(self, entry: Entry, offset: int, view: memoryview, ticket: object = None) -> None:
        view[:] = self._files[entry.path][offset : offset + len(view)]

    def close(self) -> None:
        pass
