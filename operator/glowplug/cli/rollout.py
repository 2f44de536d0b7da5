"""A rollout as `glowplug status NAME` shows it: replicas by revision. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    A replica that drains is neither ready nor starting.
    """

    name: str
    updated: bool
    ready: int
    starting: int
    draining: int
    since: str

    @property
    def active(self) -> int:
        """Replicas that serve or will."""
        return self.ready + self.starting


def revisions(pods: Iterable[Mapping[str, Any]], newest: str | None) -> list[Revision]:
    """Count the Pods of one model by revision, the newest first, then by age."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for pod in pods:
        if (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded"):
            name = (pod["metadata"].get("labels") or {}).get(REVISION, "")
            by_name.setdefault(name, []).append(pod)
    found = [_revision(name, its, updated=name == newest) for name, its in by_name.items()]
    found.sort(key=lambda revision: revision.since, reverse=True)
    return sorted(found, key=lambda revision: not revision.updated)


def _revision(name: str, pods: Sequence[Mapping[str, Any]], *, updated: bool) -> Revision:
    states = [_state(pod) for pod in pods]
    return Revision(
        name=name,
        updated=updated,
        ready=states.count("ready"),
        starting=states.count("starting"),
        draining=states.count("draining"),
        since=min(str(pod["metadata"].get("creationTimestamp") or "") for pod in pods),
    )


def _state(pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    if "deletionTimestamp" in metadata or metadata.get("labels", {}).get(STATE) == "draining":
        return "draining"
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return "ready" if ready else "starting"


def sentence(found: Sequence[Revision]) -> str:
    """Say how far the rollout is."""
    new = sum(revision.active for revision in found if revision.updated)
    old = sum(revision.active for revision in found if not revision.updated)
    ready = sum(revision.ready for revision in found if revision.updated)
    draining = sum(revision.draining for revision in found)
    tail = f"; {draining} draining" if draining else ""
    if old:
        return f"Rolling out: {new} updated ({ready} ready), {old} of older revisions{tail}."
    if new:
        how = "all ready" if ready == new else f"{ready} ready"
        return f"Rolled out: {new} updated, {how}{tail}."
    return f"No replica of any revision{tail}."


def as_json(found: Sequence[Revision] | None) -> list[dict[str, Any]] | None:
    """Return the revisions as plain data; None where they are not known."""
    return None if found is None else [asdict(revision) for revision in found]


def render(found: Sequence[Revision]) -> RenderableType:
    """Return the sentence and, where there are replicas, a line for each revision."""
    if not found:
        return Text(sentence(found))
    table = Table(box=None, pad_edge=False)
    table.add_column("REVISION")
    for column in ("READY", "STARTING", "DRAINING"):
        table.add_column(column, justify="right")
    table.add_column("SINCE")
    for revision in found:
        name = f"{revision.name} (newest)" if revision.updated else revision.name
        counts = (revision.ready, revision.starting, revision.draining)
        table.add_row(name, *map(str, counts), revision.since)
    return Group(Text(sentence(found)), table)
