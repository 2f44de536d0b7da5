"""How many ranges to ask for at a time, learned from what each number brings.

More connections help until the network card, the store's disk or this machine's cores are busy,
and cost after that. So the number climbs while throughput grows with it, steps back when it does
not, and now and then tries one fewer, which is kept when nothing is lost. A store that says "slow
down" halves it. Pure: the caller tells the time.
"""

from __future__ import annotations

WINDOW = 0.5  # s over which throughput is taken; also at least one round of all requests
GAIN = 1.05  # a step up must bring this factor to be kept
LOSS = 0.98  # a step down may cost this factor
REST = 8  # windows after which a settled number is questioned
SLOWED_FOR = 4  # windows without a step up after "slow down"


class Pace:
    """Holds `limit`, between 1 and `most`."""

    def __init__(self, start: int, most: int, now: float) -> None:
        self.most = max(1, most)
        self.limit = min(max(1, start), self.most)
        self._step = max(1, self.limit // 2)
        self._since = now
        self._bytes = 0
        self._count = 0
        self._before: float | None = None  # bytes/s at the limit before the last change
        self._change = 0
        self._rest = 0
        self._down_next = False
        self._slowed_at = -WINDOW

    def done(self, count: int, now: float) -> None:
        """Note that one range of `count` bytes has come."""
        self._bytes += count
        self._count += 1
        elapsed = now - self._since
        if elapsed < WINDOW or self._count < self.limit:
            return
        self._decide(self._bytes / elapsed)
        self._restart(now)

    def slow_down(self, now: float) -> None:
        """Note that the store asked for fewer requests; many such words at once count once."""
        if now - self._slowed_at < WINDOW:
            return
        self._slowed_at = now
        self.limit = max(1, self.limit // 2)
        self._change, self._before, self._rest = 0, None, SLOWED_FOR
        self._restart(now)

    def _restart(self, now: float) -> None:
        self._since, self._bytes, self._count = now, 0, 0

    def _decide(self, rate: float) -> None:
        if self._change > 0:
            self._after_up(rate)
        elif self._change < 0:
            self._after_down(rate)
        elif self._rest > 0:
            self._rest -= 1
        elif self._down_next and self.limit > 1:
            self._go(-1, rate)
        else:
            self._go(self._step, rate)

    def _after_up(self, rate: float) -> None:
        if self._before is not None and rate < GAIN * self._before:
            self._settle(-self._change, down_next=True)
        else:
            self._go(self._step, rate)

    def _after_down(self, rate: float) -> None:
        if self._before is not None and rate < LOSS * self._before:
            self._settle(-self._change, down_next=False)
        elif self.limit > 1:
            self._go(-1, rate)
        else:
            self._settle(0, down_next=False)

    def _go(self, step: int, rate: float) -> None:
        after = min(max(1, self.limit + step), self.most)
        if after == self.limit:
            self._settle(0, down_next=True)
            return
        self._change, self.limit, self._before = after - self.limit, after, rate

    def _settle(self, step: int, *, down_next: bool) -> None:
        self.limit = min(max(1, self.limit + step), self.most)
        self._change, self._before, self._rest = 0, None, REST
        self._down_next = down_next
