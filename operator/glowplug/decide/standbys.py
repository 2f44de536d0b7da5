"""How many standbys a shape needs, from the launches that took one."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from glowplug.decide.observation import count, seconds

HORIZON_S = 24 * 3600.0
MOST_LAUNCHES = 10_000


@dataclass(slots=True)
class StandbyPlanner:
    """Standbys shared by all models of one shape.

    A launch finds a standby if no more launches, itself included, came while the pool refills
    than it holds. So the pool holds the `attainment` quantile, over the launches of the last day,
    of the launches within `claim_s + refill_s` before each.
    """

    claim_s: float
    refill_s: float
    max_standbys: int
    attainment: float  # fraction of the launches that should find a standby
    _launches: deque[tuple[float, int]] = field(default_factory=deque)  # time, launches till then
    _total: int = 0
    _crowds: deque[tuple[float, int, int]] = field(default_factory=deque)  # time, crowd, launches
    _now: float = 0.0
    _pool: int = 0

    def step(self, now: float, launches: float) -> int:
        """Standbys to hold; `launches` since the last step, `now` in seconds since the epoch."""
        self._now = max(self._now, seconds(now) or 0.0)
        came = int(min(count(launches) or 0, MOST_LAUNCHES))
        if came:
            self._enter(came)
        if self._drop_old() or came:
            self._pool = min(self.max_standbys, self._quantile())
        return self._pool

    def _enter(self, came: int) -> None:
        away = self.claim_s + self.refill_s
        while self._launches and self._launches[0][0] <= self._now - away:
            self._total -= self._launches.popleft()[1]
        self._launches.append((self._now, came))
        self._total += came
        self._crowds.append((self._now, self._total, came))

    def _drop_old(self) -> int:
        """Forget what is older than a day or too much; returns how many were forgotten."""
        before = len(self._crowds)
        while self._crowds and (
            self._crowds[0][0] <= self._now - HORIZON_S or len(self._crowds) > MOST_LAUNCHES
        ):
            self._crowds.popleft()
        return before - len(self._crowds)

    def _quantile(self) -> int:
        """The smallest pool that serves the wanted share of launches."""
        if not self._crowds:
            return 0
        crowds = np.array([crowd for _, crowd, _ in self._crowds])
        weights = np.array([launches for _, _, launches in self._crowds])
        order = np.argsort(crowds, kind="stable")
        share = np.cumsum(weights[order]) / weights.sum()
        place = int(np.searchsorted(share, min(self.attainment, 1.0) - 1e-12))
        return int(crowds[order][min(place, crowds.size - 1)])
