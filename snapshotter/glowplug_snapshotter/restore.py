"""Brings a snapshot or a source into a directory, verified, and tells the story as events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glowplug_snapshotter.destinations.directory import Directory
from glowplug_snapshotter.errors import TransientError
from glowplug_snapshotter.events import Emit, Event
from glowplug_snapshotter.plan import MANIFEST_URL, Plan, plan_snapshot, plan_source
from glowplug_snapshotter.ring import Ring, Tally
from glowplug_snapshotter.sources import open_source

if TYPE_CHECKING:
    from glowplug_snapshotter.compiled.placing import Wanted


@dataclass(frozen=True, slots=True)
class Request:
    """What to restore: `kind` is snapshot (proved chunk by chunk) or source (pinned, sized).

    `cache` is the address of the node's cache of that store; it may be gone. `compiled` is the
    engine's compile cache that is wanted beside the model.
    """

    url: str
    kind: str
    digest: str | None
    endpoint: str | None
    to: Path
    cache: str | None = None
    compiled: Wanted | None = None

    def identity(self) -> dict[str, str | None]:
        """Return what makes two restores into one directory the same."""
        return {"from": self.url, "kind": self.kind, "digest": self.digest}


def restore(request: Request, emit: Emit, clock: Callable[[], float] = time.time) -> Event:
    """Fill the directory and return the result event.

    Files that an earlier run with the same identity left complete are kept and cost nothing: a
    restarted container finds its tmpfs as it was. One that was killed, or met a store that was
    down, is gone on with. Raises SnapshotError; whatever raises, also a signal handler's exception,
    leaves no torn file under a final name. A compile cache that cannot be had is no failure.
    """
    started = clock()
    result = _restore_model(request, emit, started, clock)
    if request.compiled is None:
        return result
    placed = _place(request, request.compiled, result["digest"])
    moved = result["stages"][0]["bytes"]
    return {**result, **_timing(started, clock(), moved), "compileCache": placed}


def _place(request: Request, compiled: Wanted, digest: str | None) -> Event:
    from glowplug_snapshotter.compiled.placing import place

    found = MANIFEST_URL.fullmatch(request.url)
    store = found["store"] if found else request.url.rstrip("/")
    return place(lambda: open_source(store, request.endpoint), digest, compiled)


def _restore_model(
    request: Request, emit: Emit, started: float, clock: Callable[[], float]
) -> Event:
    directory = Directory(request.to)
    earlier = directory.complete(request.identity())
    if earlier is not None:
        return {**earlier, "reused": True, **_timing(started, clock(), 0)}
    times = [time.monotonic()]
    plan = _plan(request)
    times.append(time.monotonic())
    try:
        emit({"event": "progress", "done": 0, "total": plan.size})
        tally = copy(plan, directory, emit)
        times.append(time.monotonic())
        result: Event = {
            "event": "result",
            "bytes": plan.size,
            "files": len(plan.items),
            "verified": plan.verified,
            "digest": plan.digest,
            "reused": False,
        }
        files = [{"path": item.path, "size": item.entry.size} for item in plan.items]
        directory.finish({"identity": request.identity(), "files": files, "result": result})
        times.append(time.monotonic())
    finally:
        plan.reader.close()
    return {**result, **_timing(started, clock(), plan.size), **_details(tally, *times)}


def copy(plan: Plan, directory: Directory, emit: Emit) -> Tally:
    """Bring a plan's files into a directory; what can be gone on with later is kept on failure."""
    ring = None
    try:
        directory.prepare(plan)
        ring = Ring(plan, directory, lambda path: emit({"event": "file", "name": path}))
        total = plan.size
        ring.run(lambda done: emit({"event": "progress", "done": done, "total": total}))
    except BaseException as error:
        if ring is not None:
            ring.cancel()
        if isinstance(error, TransientError) and error.reason != "ChecksumMismatch":
            directory.suspend()
        else:
            directory.abandon()
        raise
    return ring.tally


def _timing(started: float, ended: float, moved: int) -> Event:
    """Say when it was done, and as a stage of a cold start (times since the epoch)."""
    stage = {"name": "restore", "start": started, "end": ended, "hidden": False, "bytes": moved}
    return {"seconds": round(ended - started, 4), "stages": [stage]}


def _details(tally: Tally, begun: float, planned: float, copied: float, ended: float) -> Event:
    """Say where the time went (s): four steps that follow each other, and what threads did in one.

    `verify` and `write` are summed over the threads of the transfer.
    """
    first = tally.first_byte_at or planned
    timings = {
        "plan": planned - begun,
        "firstByte": first - planned,
        "transfer": copied - first,
        "commit": ended - copied,
        "verify": tally.verify,
        "write": tally.write,
    }
    return {
        "timings": {name: round(value, 4) for name, value in timings.items()},
        "resumedBytes": tally.resumed,
        "ranges": {
            "done": tally.ranges,
            "retried": tally.retried,
            "doubled": tally.doubled,
            "concurrency": tally.concurrency,
        },
    }


def _plan(request: Request) -> Plan:
    if request.kind == "snapshot":
        return plan_snapshot(request.url, request.digest, request.endpoint, request.cache)
    return plan_source(request.url, request.endpoint)
