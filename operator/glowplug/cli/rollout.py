"""A rollout as `glowplug status NAME` shows it: replicas by revision. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

MODEL = "glowplug.dev/model"
REVISION = "glowplug.dev/revision"
STATE = "glowplug.dev/state"
REPLICAS = "app.kubernetes.io/component=replica"


@dataclass(frozen=True, slots=True)
class Revision:
    """The replicas of one revision; `updated`: it is the newest. `since`: its oldest Pod's birth.

    A replica that drains is neither ready nor starting; `leaving` is the number of requests in
    flight at those that do, None where nobody can tell.
    """

    name: str
    updated: bool
    ready: int
    starting: int
    draining: int
    leaving: int | None
    since: str

    @property
    def active(self) -> int:
        """Replicas that serve or will."""
        return self.ready + self.starting

    @property
    def carried(self) -> str:
        """What those that drain still have to answer, as a remark."""
        return f" ({self.leaving} in flight)" if self.draining and self.leaving is not None else ""


def revisions(
    pods: Iterable[Mapping[str, Any]], newest: str | None, in_flight: Mapping[str, int] | None
) -> list[Revision]:
    """Count the Pods of one model by revision, the newest first, then by age.

    in_flight: requests by Pod uid, a Pod without any may be missing; None when it is not known.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for pod in pods:
        if (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded"):
            name = (pod["metadata"].get("labels") or {}).get(REVISION, "")
            by_name.setdefault(name, []).append(pod)
    found = [_revision(name, its, in_flight, name == newest) for name, its in by_name.items()]
    found.sort(key=lambda revision: revision.since, reverse=True)
    return sorted(found, key=lambda revision: not revision.updated)


def _revision(
    name: str,
    pods: Sequence[Mapping[str, Any]],
    in_flight: Mapping[str, int] | None,
    updated: bool,
) -> Revision:
    states = [_state(pod) for pod in pods]
    leaving = [p["metadata"]["uid"] for p, s in zip(pods, states, strict=True) if s == "draining"]
    return Revision(
        name=name,
        updated=updated,
        ready=states.count("ready"),
        starting=states.count("starting"),
        draining=states.count("draining"),
        leaving=None if in_flight is None else sum(in_flight.get(uid, 0) for uid in leaving),
        since=min(str(pod["metadata"].get("creationTimestamp") or "") for pod in pods),
    )


def _state(pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    if "deletionTimestamp" in metadata or metadata.get("labels", {}).get(STATE) == "draining":
        return "draining"
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return "ready" if ready else "starting"


def sentence(found: Sequence[Revision], wanted: int | None) -> str:
    """Say how far the rollout to `wanted` replicas is.

    It has ended when no replica of an older revision is left and all that are wanted are ready.
    """
    new = [revision for revision in found if revision.updated]
    old = [revision for revision in found if not revision.updated]
    parts = [*_updated(new, wanted), *_left(old)]
    if not parts:
        return "No replica of any revision."
    ready = sum(revision.ready for revision in new)
    active = sum(revision.active for revision in new)
    ended = not old and ready == active == (active if wanted is None else wanted)
    return f"{'Rolled out' if ended else 'Rolling out'}: {', '.join(parts)}."


def _updated(new: Sequence[Revision], wanted: int | None) -> Iterator[str]:
    active = sum(revision.active for revision in new)
    ready = sum(revision.ready for revision in new)
    if wanted or active:
        of = f" of {wanted}" if wanted is not None else ""
        how = "all" if ready == active > 0 else ready
        yield f"{active}{of} updated ({how} ready)"
    yield from (f"{one.draining} draining{one.carried}" for one in new if one.draining)


def _left(old: Sequence[Revision]) -> Iterator[str]:
    if active := sum(revision.active for revision in old):
        yield f"{active} old serving"
    yield from (f"{one.draining} old draining{one.carried}" for one in old if one.draining)


def as_json(found: Sequence[Revision] | None) -> list[dict[str, Any]] | None:
    """Return the revisions as plain data; None where they are not known."""
    return None if found is None else [asdict(revision) for revision in found]


def render(found: Sequence[Revision], wanted: int | None) -> RenderableType:
    """Return the sentence and, where there are replicas, a line for each revision."""
    if not found:
        return Text(sentence(found, wanted))
    table = Table(box=None, pad_edge=False)
    table.add_column("REVISION")
    for column in ("READY", "STARTING", "DRAINING"):
        table.add_column(column, justify="right")
    table.add_column("SINCE")
    for revision in found:
        name = f"{revision.name} (newest)" if revision.updated else revision.name
        counts = (
            str(revision.ready),
            str(revision.starting),
            f"{revision.draining}{revision.carried}",
        )
        table.add_row(name, *counts, revision.since)
    return Group(Text(sentence(found, wanted)), table)
