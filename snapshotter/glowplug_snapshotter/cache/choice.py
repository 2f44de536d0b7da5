"""Which chunk to fetch next, and from whom; pure.

Nodes that start together must load the store about once. Each chunk has a home among the nodes
that bring the same content: the home loads it from the store, the others wait to get it there.
Homes come from rendezvous hashing with bounded loads, so nodes that see the same others agree
without talking, a newcomer moves few homes, and none has more than its share. A home that is slow
loses: after a while the next in the chunk's order may load it, if it has nothing better to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

WINDOW = 32  # chunks; a reader goes through a file in order, so windows are brought in order
STORE = ""  # the name of the store among sources


@dataclass(frozen=True, slots=True)
class Choice:
    """Fetch `chunk` from `source`: a peer's address, or STORE."""

    chunk: int
    source: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What a node knows when it has a free slot.

    `missing`: chunks neither here nor on their way. `order`: who should load a chunk, the home
    first. `holders`: chunks of each peer that may be asked now. `coming`: chunks that a peer has,
    be it a busy one, or loads from the store right now. `overdue`: how many times over a chunk's
    home had its time; the node at place r may load the chunk after r of them. `first`: windows
    that readers wait for, `urgent`: chunks that one has waited for too long.
    """

    me: str
    missing: Iterable[int]
    order: Callable[[int], Sequence[str]]
    holders: Mapping[str, Collection[int]]
    coming: Collection[int]
    overdue: Callable[[int], float]
    first: Collection[int] = ()
    urgent: Collection[int] = ()
    store: bool = True  # may be asked now


def orders_of(blob: str, chunks: int, nodes: Collection[str]) -> list[tuple[str, ...]]:
    """For each chunk, the nodes in the order in which they should load it; the first is its home.

    No node is home of more than ceil(chunks / nodes).
    """
    bound = -(-chunks // len(nodes))
    load = dict.fromkeys(nodes, 0)
    found = []
    for chunk in range(chunks):
        ranked = sorted(nodes, key=lambda node: _weight(blob, chunk, node))
        home = next(node for node in ranked if load[node] < bound)
        load[home] += 1
        ranked.remove(home)
        found.append((home, *ranked))
    return found


def choose(sight: Sight) -> Choice | None:
    """The best fetch that may start now, None when there is none."""
    best: tuple[tuple[bool, bool, int, bool, int], Choice] | None = None
    for chunk in sight.missing:
        window = chunk // WINDOW
        mine = sight.order(chunk)[0] == sight.me
        spread = chunk if mine else int.from_bytes(_weight(sight.me, chunk, "")[:4])
        rank = (chunk not in sight.urgent, window not in sight.first, window, not mine, spread)
        if best is not None and rank >= best[0]:
            continue
        source = _source(sight, chunk)
        if source is not None:
            best = rank, Choice(chunk, source)
    if best is not None:
        return best[1]
    return _stolen(sight) if sight.store else None


def _source(sight: Sight, chunk: int) -> str | None:
    having = [peer for peer, chunks in sight.holders.items() if chunk in chunks]
    if having:
        return min(having, key=lambda peer: _weight(sight.me, chunk, peer))
    home = sight.order(chunk)[0] == sight.me
    return STORE if home and sight.store and chunk not in sight.coming else None


def _stolen(sight: Sight) -> Choice | None:
    """With nothing better to do: a chunk whose home had its time."""
    places = ((sight.order(chunk).index(sight.me), chunk) for chunk in sight.missing)
    mine = [(place, chunk) for place, chunk in places if sight.overdue(chunk) > max(1, place)]
    return Choice(min(mine)[1], STORE) if mine else None


def _weight(blob: str, chunk: int, node: str) -> bytes:
    return hashlib.blake2b(f"{blob} {chunk} {node}".encode(), digest_size=8).digest()
