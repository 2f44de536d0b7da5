"""What the daemon counts, in Prometheus' text format."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counters:
    """Sums since the start, bytes or events; each comment is the metric's help."""

    hits: int = 0  # ranges that were here when a Pod asked
    misses: int = 0  # ranges that a Pod had to wait for
    evictions: int = 0  # contents that left for others
    from_store_bytes: int = 0  # read from the store
    from_peers_bytes: int = 0  # read from other nodes
    to_pods_bytes: int = 0  # sent to Pods
    to_peers_bytes: int = 0  # sent to other nodes
    passed_bytes: int = 0  # sent to Pods without being kept, for want of room
    refused: int = 0  # requests to the peers' port without a right signature
    busy: int = 0  # requests of peers turned away, all connections being taken
    lies: int = 0  # contents or chunks that peers sent wrong


@dataclass(frozen=True, slots=True)
class Gauges:
    """The state now; each comment is the metric's help."""

    bytes: int  # on the disk, what is on its way included
    budget_bytes: int  # that may be on the disk
    contents: int  # on the disk, what is on its way included
    downloads: int  # under way
    peers: int  # other nodes that may be asked
    peers_shunned: int  # other nodes that are not asked for a while


def render(counters: Counters, gauges: Gauges) -> str:
    """Return the exposition."""
    lines = []
    for kind, record in (("counter", counters), ("gauge", gauges)):
        for field in fields(record):
            name = f"glowplug_cache_{field.name}" + ("_total" if kind == "counter" else "")
            lines.append(f"# TYPE {name} {kind}")
            lines.append(f"{name} {getattr(record, field.name)}")
    return "\n".join(lines) + "\n"
