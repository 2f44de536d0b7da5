"""Brings a snapshot or a source into a directory, verified, and tells the story as events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glowplug_snapshotter.destination import Destination
from glowplug_snapshotter.events import Emit, Event
from glowplug_snapshotter.plan import Plan, plan_snapshot, plan_source
from glowplug_snapshotter.ring import Ring


@dataclass(frozen=True, slots=True)
class Request:
    """What to restore: `kind` is snapshot (proved chunk by chunk) or source (pinned, sized)."""

    url: str
    kind: str
    digest: str | None
    endpoint: str | None
    to: Path

    def identity(self) -> dict[str, str | None]:
        """Return what makes two restores into one directory the same."""
        return {"from": self.url, "kind": self.kind, "digest": self.digest}


def restore(request: Request, emit: Emit, clock: Callable[[], float] = time.time) -> Event:
    """Fill the directory and return the result event.

    Files that an earlier run with the same identity left complete are kept and cost nothing: a
    restarted container finds its tmpfs as it was. Raises SnapshotError; whatever raises, also
    KeyboardInterrupt or a signal handler's exception, leaves no torn file under a final name.
    """
    started = clock()
    destination = Destination(request.to)
    earlier = destination.complete(request.identity())
    if earlier is not None:
        return {**earlier, "reused": True, **_timing(started, clock(), 0)}
    plan = _plan(request)
    emit({"event": "progress", "done": 0, "total": plan.size})
    destination.prepare(plan.size)
    _copy(plan, destination, emit)
    result: Event = {
        "event": "result",
        "bytes": plan.size,
        "files": len(plan.items),
        "verified": plan.verified,
        "digest": plan.digest,
        "reused": False,
        **_timing(started, clock(), plan.size),
    }
    files = [{"path": item.path, "size": item.entry.size} for item in plan.items]
    destination.finish({"identity": request.identity(), "files": files, "result": result})
    return result


def _timing(started: float, ended: float, moved: int) -> Event:
    """Say when it was done, and as a stage of a cold start (times since the epoch)."""
    stage = {"name": "restore", "start": started, "end": ended, "hidden": False, "bytes": moved}
    return {"seconds": round(ended - started, 4), "stages": [stage]}


def _plan(request: Request) -> Plan:
    if request.kind == "snapshot":
        return plan_snapshot(request.url, request.digest, request.endpoint)
    return plan_source(request.url, request.endpoint)


def _copy(plan: Plan, destination: Destination, emit: Emit) -> None:
    ring = Ring(plan, destination, lambda path: emit({"event": "file", "name": path}))
    total = plan.size
    try:
        ring.run(lambda done: emit({"event": "progress", "done": done, "total": total}))
    except BaseException:
        ring.cancel()
        destination.abandon()
        raise
