"""How many replicas each model of a pool may have while the pool's GPUs are short.

What fits is granted at once, so that a start from zero waits for nobody; the Arbiter is asked once
a round, because it counts the rounds in which a bid went empty.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from glowplug.decide import Arbiter, Bid

ROUND_S = 2.0


@dataclass(slots=True)
class _Pool:
    gpus: int
    arbiter: Arbiter
    bids: dict[Hashable, Bid] = field(default_factory=dict)
    grants: dict[Hashable, int] = field(default_factory=dict)
    asked_at: float = float("-inf")

    def grant(self, bid: Bid, now: float) -> int:
        self.bids[bid.key] = bid
        if sum(one.wanted * one.gpus_each for one in self.bids.values()) <= self.gpus:
            self.grants = {key: one.wanted for key, one in self.bids.items()}
        elif now - self.asked_at >= ROUND_S:
            self.asked_at = now
            self.grants = self.arbiter.step(self.bids.values())
        else:
            self.grants[bid.key] = min(bid.wanted, self._room(bid))
        return self.grants[bid.key]

    def _room(self, bid: Bid) -> int:
        """Between two rounds a bid keeps what it was granted, and may take what nobody holds."""
        others = (key for key in self.grants if key != bid.key)
        held = sum(self.grants[key] * self.bids[key].gpus_each for key in others)
        free = max(0, self.gpus - held) // max(1, bid.gpus_each)
        return max(free, 0)

    def forget(self, key: Hashable) -> None:
        self.bids.pop(key, None)
        self.grants.pop(key, None)


class Budgets:
    """The budgets of all pools; `clock` is any monotonic clock in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pools: dict[str, _Pool] = {}
        self._pool_of: dict[Hashable, str] = {}

    def grant(self, pool: str, budget: int, bid: Bid) -> int:
        """Replicas that the model of `bid` may have now; `budget` in GPUs."""
        if self._pool_of.get(bid.key) != pool:
            self.forget(bid.key)
            self._pool_of[bid.key] = pool
        entry = self._pools.setdefault(pool, _Pool(budget, Arbiter(budget)))
        if entry.gpus != budget:
            entry.gpus, entry.arbiter = budget, Arbiter(budget)
        return entry.grant(bid, self._clock())

    def forget(self, key: Hashable) -> None:
        """The model is gone, or has left its pool."""
        pool = self._pools.get(self._pool_of.pop(key, ""))
        if pool is not None:
            pool.forget(key)
