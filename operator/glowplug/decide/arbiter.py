"""Who gets the GPUs of a pool when there are not enough for all."""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import groupby

PATIENCE = 30
"""Successive refusals after which a bid goes first, and the steps that its turn then lasts."""


@dataclass(frozen=True, slots=True)
class Bid:
    """What one model asks for."""

    key: Hashable
    wanted: int  # replicas
    gpus_each: int
    marginal_value: float  # dollars per hour that a GPU more is worth to it


@dataclass(slots=True)
class Arbiter:
    """Grants the GPUs of one budget, the most valuable bid first, equal bids in turn.

    A bid that got nothing in 30 successive steps goes first. It keeps its place before the others
    for as many steps, unless one that starved as well goes first then: a turn that ended at once
    would start a replica only to stop it.
    """

    budget_gpus: float
    _refused: dict[Hashable, int] = field(default_factory=dict)
    _turn: dict[Hashable, int] = field(default_factory=dict)

    def step(self, bids: Iterable[Bid]) -> dict[Hashable, int]:
        """Replicas granted to each bid; never more than wanted, never more GPUs than there are."""
        bids = list(bids)
        self._forget(bids)
        granted = {bid.key: 0 for bid in bids}
        left = self.budget_gpus if not math.isnan(self.budget_gpus) else 0.0
        for _, equals in groupby(sorted(bids, key=self._order), key=self._order):
            left = _grant(list(equals), granted, left)
        self._remember(bids, granted)
        return granted

    def _order(self, bid: Bid) -> tuple[int, int, float]:
        """Starved bids first, the longest refused before all; then running turns; then value."""
        refused = self._refused.get(bid.key, 0)
        if refused >= PATIENCE:
            return (0, -refused, -_value(bid))
        if bid.key in self._turn:
            return (1, self._turn[bid.key], -_value(bid))
        return (2, 0, -_value(bid))

    def _remember(self, bids: list[Bid], granted: dict[Hashable, int]) -> None:
        for bid in bids:
            refused = self._refused.pop(bid.key, 0)
            turn = PATIENCE if refused >= PATIENCE else self._turn.get(bid.key, 0)
            self._turn.pop(bid.key, None)
            if bid.wanted > 0 and granted[bid.key] == 0:
                self._refused[bid.key] = refused + 1
            elif turn > 1:
                self._turn[bid.key] = turn - 1

    def _forget(self, bids: list[Bid]) -> None:
        """A bid that is not made any more has no place in the queue."""
        keys = {bid.key for bid in bids if bid.wanted > 0}
        self._refused = {key: n for key, n in self._refused.items() if key in keys}
        self._turn = {key: n for key, n in self._turn.items() if key in keys}


def _grant(bids: list[Bid], granted: dict[Hashable, int], left: float) -> float:
    """Give one replica to each in turn while GPUs are left; returns what is left."""
    open_bids = sorted(bids, key=lambda bid: str(bid.key))
    while open_bids:
        still_open = []
        for bid in open_bids:
            if granted[bid.key] < bid.wanted and bid.gpus_each <= left:
                granted[bid.key] += 1
                left -= bid.gpus_each
                still_open.append(bid)
        open_bids = still_open
    return left


def _value(bid: Bid) -> float:
    return bid.marginal_value if not math.isnan(bid.marginal_value) else -math.inf
