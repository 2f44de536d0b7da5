"""How many replicas each model of a pool may have while the pool's GPUs are short.

What fits is granted at once, so that a start from zero waits for nobody; the Arbiter is asked once
a round, because it counts the rounds in which a bid went empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from glowplug.decide import Arbiter, Bid

ROUND_S = 2.0


@dataclass(slots=True)
class _Pool:
    arbiter: Arbiter
    gpus: int
    bids: dict[str, Bid] = field(default_factory=dict)
    grants: dict[str, int] = field(default_factory=dict)
    asked_at: float = float("-inf")

    def held(self, but: str) -> int:
        return sum(
            count * self.bids[key].gpus_each
            for key, count in self.grants.items()
            if key != but and key in self.bids
        )


class Budgets:
    """The budgets of all pools; `clock` is any monotonic clock in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pools: dict[str, _Pool] = {}
        self._pool_of: dict[str, str] = {}

    def grant(self, pool: str, budget: int, bid: Bid) -> int:
        """Replicas that the model of `bid` may have now; `budget` in GPUs."""
        entry = self._pools.get(pool)
        if entry is None or entry.gpus != budget:
            bids = entry.bids if entry is not None else {}
            grants = entry.grants if entry is not None else {}
            entry = self._pools[pool] = _Pool(Arbiter(budget), budget, bids, grants)
        if self._pool_of.get(bid.key) != pool:
            self.forget(bid.key)
            self._pool_of[bid.key] = pool
        entry.bids[bid.key] = bid
        fits = sum(b.wanted * b.gpus_each for b in entry.bids.values()) <= budget
        if fits:
            entry.grants = {key: one.wanted for key, one in entry.bids.items()}
        elif self._clock() - entry.asked_at >= ROUND_S:
            entry.asked_at = self._clock()
            entry.grants = dict(entry.arbiter.step(list(entry.bids.values())))
        else:
            free = budget - entry.held(bid.key)
            room = max(entry.grants.get(bid.key, 0), free // max(1, bid.gpus_each))
            entry.grants[bid.key] = max(0, min(bid.wanted, room))
        return entry.grants.get(bid.key, 0)

    def forget(self, key: str) -> None:
        """The model is gone, or has left its pool."""
        pool = self._pools.get(self._pool_of.pop(key, ""))
        if pool is not None:
            pool.bids.pop(key, None)
            pool.grants.pop(key, None)
