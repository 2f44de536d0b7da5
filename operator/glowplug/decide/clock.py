"""Time as the policy counts it: only forward, and only as far as it was watched."""

from dataclasses import dataclass

from glowplug.decide.observation import seconds

BLIND_S = 60.0


@dataclass(slots=True)
class Clock:
    """Seconds of watched time since the first step.

    A clock that was set back, broken, or ahead by more than could have gone unwatched adds
    nothing: what is held is then held longer, never shorter. A gap counts as watched while it is
    no longer than `patience`, a minute, or three times the gap before it.
    """

    patience: float  # s
    elapsed: float = 0.0
    _last: float | None = None
    _gap: float = 0.0

    def advance(self, now: float) -> float:
        """Watched seconds at a time in seconds since the epoch."""
        at = seconds(now)
        if at is None:
            return self.elapsed
        if self._last is not None:
            gap = at - self._last
            if 0 < gap <= max(self.patience, BLIND_S, 3 * self._gap):
                self.elapsed += gap
            self._gap = max(gap, 0.0)
        self._last = at
        return self.elapsed
