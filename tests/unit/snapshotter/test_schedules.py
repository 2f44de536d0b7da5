"""Seeded schedules of faults: whatever the store and the machine do, no byte is ever wrong.

A schedule picks faults, where they strike and how often, kills and cancels among them. After each
run every file with a name must be the model's, an error must be one that the faults explain, and
the next run, on a healthy store, must complete. GLOWPLUG_SOAK=1 tries a thousand of them.
"""

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from glowplug_snapshotter import fetch, plan, retry
from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.backends import wire
from glowplug_snapshotter.checksum import blake3, crc32c
from glowplug_snapshotter.destinations import directory
from glowplug_snapshotter.destinations.directory import JOURNAL, PARTIAL
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.launcher.weights import file_system
from glowplug_snapshotter.restore import Request, restore

from .faulty import Fault, Faulty
from .tools import finish, start

SMALL, HUGE = 64 * 1024, 2 * 2**20  # bytes of a chunk; the large ones can be huge pages in tmpfs
SCHEDULES = 1000 if os.environ.get("GLOWPLUG_SOAK") == "1" else 40
PER_TEST = 10
HEALED = ("500", "503", "429", "408", "cut", "reset", "stall", "shorter", "longer", "garbage",
          "babbling", "chunked", "elsewhere")  # fmt: skip
FINAL = {
    "403": "Forbidden",
    "404": "NotFound",
    "416": "SourceChanged",
    "etag": "SourceChanged",
    "replaced": "SourceChanged",
    "whole": "Unsupported",
}
OFTEN = 1000  # times: a fault that does not pass


@dataclass(frozen=True)
class Schedule:
    """`faults`: (file's place, chunk, how often, fault). `end`: (signal, after how many ranges)."""

    kind: str
    faults: tuple[tuple[int, int, int, Fault], ...]
    end: tuple[int, int] | None

    def reasons(self) -> set[str]:
        """The errors that these faults may end in, whichever strikes first."""
        found = set()
        for _, _, times, fault in self.faults:
            if fault.kind == "replaced" and self.kind == "snapshot":
                found.add("ChecksumMismatch")
            elif fault.kind in FINAL:
                found.add(FINAL[fault.kind])
            elif fault.kind == "flip":
                found |= {"ChecksumMismatch"} if times == OFTEN else set()
        passing = [times for _, _, times, fault in self.faults if fault.kind in (*HEALED, "flip")]
        return found | ({"Unavailable"} if sum(passing) >= retry.ATTEMPTS else set())


def make_schedule(seed: int, files: list[int], chunk_size: int) -> Schedule:
    """`files`: bytes of each file."""
    chance = random.Random(seed)
    kind = chance.choice(["snapshot", "snapshot", "source"])
    kinds = [*HEALED, *FINAL, *(["flip"] * 4 if kind == "snapshot" else [])]
    faults = []
    for _ in range(chance.randint(1, 5)):
        file = chance.randrange(len(files))
        chunk = chance.randrange(max(1, -(-files[file] // chunk_size)))
        name = chance.choice(kinds)
        # A fault that comes and goes is what heals; one in six stays.
        times = OFTEN if name in FINAL or chance.random() < 1 / 6 else chance.randint(1, 3)
        if name == "stall":
            times = 1
        faults.append((file, chunk, times, Fault(name, at=chance.randrange(chunk_size))))
    end = None
    if chance.random() < 0.25:
        end = (chance.choice([signal.SIGKILL, signal.SIGTERM]), chance.randint(1, 40))
    return Schedule(kind, tuple(faults), end)


class World:
    """A model, stored as a snapshot and as a plain folder on a server that errs."""

    def __init__(self, chunk_size: int) -> None:
        self.chunk_size = chunk_size
        chance = random.Random(7)
        sizes = {
            "config.json": 300,
            "model.safetensors": 11 * chunk_size + 123,
            "generation_config.json": 2 * chunk_size,
        }
        self.model = {name: chance.randbytes(size) for name, size in sizes.items()}
        files, stored = [], {}
        for name, data in sorted(self.model.items()):
            digest = blake3(data).hexdigest()
            stored[f"store/blobs/{digest}"] = data
            crcs = tuple(
                crc32c(data[at : at + chunk_size]) for at in range(0, len(data), chunk_size)
            )
            files.append(manifests.File(name, len(data), digest, crcs))
        body = manifests.encode(manifests.Manifest("file:///m", None, tuple(files), chunk_size))
        self.digest = manifests.digest_of(body)
        hex_digest = self.digest.removeprefix("blake3:")
        stored[f"store/manifests/{hex_digest}/manifest.json"] = body
        self.paths = {
            "snapshot": {
                name: f"store/blobs/{blake3(d).hexdigest()}" for name, d in self.model.items()
            },
            "source": {name: f"folder/{name}" for name in self.model},
        }
        self.files = {**stored, **{f"folder/{name}": data for name, data in self.model.items()}}

    def request(self, server: Faulty, kind: str, to: Path) -> Request:
        place = "store" if kind == "snapshot" else "folder"
        digest = self.digest if kind == "snapshot" else None
        return Request(f"{server.url}/{place}", kind, digest, None, to)

    def wrong(self, to: Path) -> list[str]:
        """Names in the directory whose bytes are not the model's."""
        return [
            path.name
            for path in to.glob("*")
            if path.is_file()
            and not path.name.startswith(".glowplug")
            and path.read_bytes() != self.model.get(path.name)
        ]

    def is_whole(self, to: Path) -> bool:
        return not self.wrong(to) and all((to / name).is_file() for name in self.model)


@pytest.fixture(scope="module")
def worlds() -> dict[int, World]:
    return {size: World(size) for size in (SMALL, HUGE)}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in tmpfs."""
    with TemporaryDirectory(dir="/dev/shm") as path:
        assert file_system(path) == "tmpfs"
        yield Path(path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, less patience; every file is written with the care that a large one gets."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(wire, "TIMEOUT", 5.0)
    monkeypatch.setattr(fetch, "PATIENCE", 0.3)
    monkeypatch.setattr(directory, "WORTH_CARE", 1)


def spoiler(world: World, schedule: Schedule, server: Faulty, pid: list[int]) -> None:
    """Have the server err as the schedule says, and end the process when it is time."""
    names = sorted(world.model)
    table: dict[tuple[str, int], list[Fault]] = {}
    for file, chunk, times, fault in schedule.faults:
        place = (world.paths[schedule.kind][names[file]], chunk * world.chunk_size)
        table.setdefault(place, []).extend([fault] * times)
    lock, count = threading.Lock(), Counter[str]()

    def spoil(path: str, first: int, number: int) -> Fault | None:
        with lock:
            count["ranges"] += 1
            if schedule.end is not None and pid and count["ranges"] == schedule.end[1]:
                os.kill(pid[0], schedule.end[0])
            waiting = table.get((path, first))
            probed = schedule.kind == "source" and number == 1 and first == 0
            if not waiting or (probed and waiting[0].kind in (*FINAL, "flip")):
                return None
            fault = waiting.pop(0)
        if fault.kind == "replaced":
            server.files = {**server.files, path: server.files[path][::-1]}
            return Fault("")
        return fault

    server.spoil = spoil


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run_here(request: Request) -> SnapshotError | None:
    try:
        restore(request, lambda event: None)
    except SnapshotError as error:
        return error
    return None


def run_child(request: Request, pid: list[int]) -> tuple[int, dict]:
    """Run the command itself, which the schedule ends by a signal; return status and last word."""
    digest = ("--digest", request.digest) if request.digest else ()
    process = start(
        "restore", "--from", request.url, "--kind", request.kind, *digest, "--to", request.to
    )
    pid.append(process.pid)
    run = finish(process)
    pid.clear()
    return run.status, run.last if run.events else {}


def play(world: World, seed: int, to: Path) -> str:
    """Run one schedule; return healed, detected or ended, or say what was wrong."""
    names = sorted(world.model)
    schedule = make_schedule(seed, [len(world.model[name]) for name in names], world.chunk_size)
    with Faulty(dict(world.files)) as server:
        request = world.request(server, schedule.kind, to)
        pid: list[int] = []
        spoiler(world, schedule, server, pid)
        fds, threads = descriptors(), threading.active_count()
        told = f"seed {seed}: {schedule}"
        if schedule.end is None:
            error = run_here(request)
            reason = error.reason if error else None
        else:
            status, last = run_child(request, pid)
            assert status in (0, 1, 143, -signal.SIGKILL), told
            reason = {0: None, 1: last.get("reason"), 143: "Cancelled"}.get(status, "killed")
        told = f"{told}, {reason}"
        assert not world.wrong(to), told
        if reason is None:
            assert world.is_whole(to), told
        elif reason not in ("Cancelled", "killed"):
            assert reason in schedule.reasons(), told
        if reason != "killed":
            left = {name for name in (PARTIAL, JOURNAL) if (to / name).exists()}
            assert not left or (reason == "Unavailable" and len(left) == 2), told
        server.drop()
        wait_until(lambda: not server.serving(), told)
        wait_until(lambda: threading.active_count() <= threads, told)
        wait_until(lambda: descriptors() <= fds, told)
        server.files = dict(world.files)
        server.spoil = lambda path, first, number: None
        after = run_here(request)
        assert after is None, f"{told}, then {after!r}"
        assert world.is_whole(to), told
        assert not (to / PARTIAL).exists(), told
        assert not (to / JOURNAL).exists(), told
    return {None: "healed", "Cancelled": "ended", "killed": "ended"}.get(reason, "detected")


def wait_until(condition: Callable[[], bool], told: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"leaked: {told}"
        time.sleep(0.01)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", range(0, SCHEDULES, PER_TEST))
def test_no_schedule_of_faults_serves_a_wrong_byte(
    worlds: dict[int, World],
    tmp_path: Path,
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
) -> None:
    in_memory = first // PER_TEST % 4 == 3
    world, root = (worlds[HUGE], memory) if in_memory else (worlds[SMALL], tmp_path)
    monkeypatch.setattr(plan, "CHUNK_SIZE", world.chunk_size)
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + PER_TEST):
        outcomes[play(world, seed, root / str(seed))] += 1
        shutil.rmtree(root / str(seed))
    print(f"schedules {first} to {first + PER_TEST - 1}: {dict(outcomes)}, none silent")
