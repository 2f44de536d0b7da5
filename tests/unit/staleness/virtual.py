"""An event loop whose clock jumps to the next timer: minutes pass in milliseconds, always alike."""

import asyncio
import selectors
from types import SimpleNamespace
from typing import Any

EPOCH = 1_800_000_000.0


class _Jumping(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for ever"
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """No threads and no sockets may be waited for: nothing but timers moves its clock."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def wall(self) -> float:
        """Seconds since the epoch."""
        return EPOCH + self._jumping.now

    def module(self) -> Any:
        """What a module that says `import time` is to see."""
        return SimpleNamespace(time=self.wall, monotonic=self.time)
