"""Host memory that chunks are received into and copied from, used again and again."""

from __future__ import annotations

import threading
from collections import deque

from glowplug_snapshotter.gpu.device import Device, Event, Slot

SPARE = 2  # slots whose copies may be under way while all others are received into


class Slots:
    """Slots that are used again in turn; as many as the ring has chunks in memory, and SPARE."""

    def __init__(self, device: Device, size: int) -> None:
        self._device = device
        self._size = size
        self._used: deque[tuple[Slot, Event]] = deque()
        self._lock = threading.Lock()

    def take(self) -> Slot:
        """Return a slot that no copy reads any more, if need be once its event has passed."""
        with self._lock:
            found = self._used.popleft() if len(self._used) >= SPARE else None
        if found is None:
            return self._device.slot(self._size)
        slot, event = found
        event.wait()
        return slot

    def give_back(self, slot: Slot, event: Event) -> None:
        """Let it be used again once the event has passed."""
        with self._lock:
            self._used.append((slot, event))

    def clear(self) -> None:
        """Let go of all of them."""
        with self._lock:
            self._used.clear()
