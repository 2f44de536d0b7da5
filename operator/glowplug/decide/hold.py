"""Keeping what was needed lately: a window over the counts that were needed."""

from collections import deque
from dataclasses import dataclass, field

SHORTEST_S = 60.0


@dataclass(slots=True)
class Hold:
    """The highest count needed within the last so many seconds.

    Kept as a deque that falls from left to right, so that a step costs the same whatever the
    window's length.
    """

    longest: float  # s
    _needed: deque[tuple[float, int]] = field(default_factory=deque)

    def observe(self, at: float, needed: int) -> None:
        """Enter what is needed at a time in watched seconds."""
        while self._needed and self._needed[-1][1] <= needed:
            self._needed.pop()
        self._needed.append((at, needed))
        while self._needed[0][0] <= at - self.longest:
            self._needed.popleft()

    def highest(self, at: float, within: float) -> int:
        """The highest count entered less than `within` seconds ago, `within` <= `longest`."""
        return next((count for then, count in self._needed if then > at - within), 0)


def hold_of(idle_after: float, lead: float | None) -> float:
    """How long a count is held, in seconds: three lead times, a minute at least.

    Never longer than `idle_after`, and exactly that while the lead time is not known.
    """
    if lead is None:
        return idle_after
    return min(idle_after, max(SHORTEST_S, 3 * lead))
