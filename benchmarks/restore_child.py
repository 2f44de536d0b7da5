"""One sample of benchmarks/restore.py in a process of its own: time, CPU and memory of one job.

Standard library only: it runs in our environment and in the peers'. A tool is a function that does
its imports and returns the work; only the work is timed, the imports are stated.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Job:
    """What to move. `keys` are objects of `bucket` at `endpoint` (host:port), with their `sizes`.

    `to` is the folder to fill, None where bytes are thrown away; `files` hold the same bytes as
    the objects, in the same order. `touched`: files of the objects' names and sizes lie in `to`,
    and are to be written into. `sync`: the clock stops when the bytes are on disk.
    """

    tool: str
    endpoint: str
    bucket: str
    keys: list[str]
    sizes: list[int]
    files: list[str]
    digest: str
    to: str | None = None
    touched: bool = False
    sync: bool = False

    def target(self, number: int) -> str:
        """Return the file that the object of this number is kept in."""
        return os.path.join(self.to or "", os.path.basename(self.keys[number]))


class UnsuitableError(Exception):
    """The tool cannot do this; the sentence is its row."""


Tool = Callable[[Job], Callable[[], object]]


def main(tools: dict[str, Tool]) -> None:
    """Do the job in the first argument; print the sample, or why there is none, as JSON."""
    job = Job(**json.loads(sys.argv[1]))
    try:
        result: dict[str, object] = dict(sample(tools[job.tool], job))
    except UnsuitableError as error:
        result = {"error": str(error)}
    except Exception as error:  # whatever a peer raises is its row
        result = {"error": f"{type(error).__name__}: {error}"[:300]}
    sys.stdout.flush()
    print("\n" + json.dumps(result), flush=True)
    os._exit(0)  # not every peer's threads let a process end


def sample(tool: Tool, job: Job) -> dict[str, float]:
    """Return seconds, CPU-seconds, and memory in bytes: the peak, and what it was before."""
    begun = time.perf_counter()
    work = tool(job)
    imported = time.perf_counter() - begun
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, child, used = memory("VmRSS"), largest_child(), cpu()
    started = time.perf_counter()
    kept = work()
    if job.sync and job.to is not None:
        for path in Path(job.to).rglob("*"):
            if path.is_file():
                sync(path)
    seconds = time.perf_counter() - started
    spent = cpu() - used
    own, other = memory("VmHWM"), largest_child()
    other = other if other > child else 0  # else of an import's
    del kept
    return {
        "seconds": seconds,
        "cpu": spent,
        "peak": max(own, other),
        "beyond": max(own - before, other),
        "imports": imported,
    }


def memory(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def largest_child() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def cpu() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)
