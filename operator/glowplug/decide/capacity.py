"""How many requests one replica serves at once, learned where queues show its limit."""

from collections import deque
from dataclasses import dataclass, field

DEFAULT = 16.0
WINDOW_S = 600.0
STREAK = 3


@dataclass(slots=True)
class Capacity:
    """Concurrency of one replica at saturation: the most that was seen in the last ten minutes.

    A replica is saturated while more than `queue_depth` requests per replica wait. One sample
    says little (a replica that just came up runs less than it can), so it takes three in a row
    with the same replicas, and the highest of them counts.
    """

    queue_depth: float
    _seen: deque[tuple[float, float]] = field(default_factory=deque)
    _last: float | None = None
    _streak: int = 0
    _peak: float = 0.0
    _ready: float = -1.0

    @property
    def value(self) -> float | None:
        """Requests per replica; None before anything was learned."""
        if self._seen:
            return max(concurrency for _, concurrency in self._seen)
        return self._last

    @property
    def saturated(self) -> bool:
        """Whether the last observation showed saturation."""
        return self._streak > 0

    def shows_saturation(self, waiting: float, ready: float) -> bool:
        """Whether so many waiting requests are more than so many replicas should have."""
        return ready > 0 and waiting > self.queue_depth * ready

    def observe(self, at: float, running: float, waiting: float, ready: float) -> None:
        """Learn from one observation; `at` is in watched seconds."""
        if not self.shows_saturation(waiting, ready) or ready != self._ready:
            self._streak, self._peak = 0, 0.0
        self._ready = ready
        if self.shows_saturation(waiting, ready):
            self._streak += 1
            self._peak = max(self._peak, running / ready)
        if self._streak >= STREAK and self._peak > 0:
            self._last = max(1.0, self._peak)
            self._seen.append((at, self._last))
        while self._seen and self._seen[0][0] <= at - WINDOW_S:
            self._seen.popleft()
