"""A device in host memory whose copies end late, and that notices a slot used again too early."""

import ctypes
import threading
import weakref
from collections import deque
from dataclasses import dataclass

from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.gpu.host import HostMemory

KDL_CPU = 1  # so that numpy takes over what the fake hands out


class FakeMemory:
    """Memory that the host, as far as loading knows, cannot write."""

    view = None

    def __init__(self, size: int) -> None:
        self.bytes = HostMemory(size)
        self.address = self.bytes.address
        self.size = size


@dataclass
class Copy:
    slot: memoryview
    wanted: bytes
    memory: weakref.ref
    offset: int


class FakeEvent:
    def __init__(self, device: "FakeDevice", after: int) -> None:
        self.device = device
        self.after = after

    def wait(self) -> None:
        self.device.run(self.after)


class FakeDevice:
    """Copies run when an event is waited for, or when more than `late` of them are under way."""

    dlpack = (KDL_CPU, 0)

    def __init__(self, late: int = 8, room: int = 1 << 40) -> None:
        self.late = late
        self.room = room
        self.queue: deque[Copy] = deque()
        self.begun = self.ended = 0
        self.slots: list[HostMemory] = []
        self.alive = self.most_alive = 0
        self.faults: list[str] = []
        self.closed = False
        self.lock = threading.RLock()

    def allocate(self, size: int) -> FakeMemory:
        with self.lock:
            if self.alive + size > self.room:
                raise SnapshotError("NoSpace", "The GPU is full.")
            self.alive += size
            self.most_alive = max(self.most_alive, self.alive)
        memory = FakeMemory(size)
        weakref.finalize(memory, self.freed, size)
        return memory

    def freed(self, size: int) -> None:
        with self.lock:
            self.alive -= size

    def slot(self, size: int) -> HostMemory:
        slot = HostMemory(size)
        with self.lock:
            self.slots.append(slot)
        return slot

    def copy(self, slot: HostMemory, start: int, memory: FakeMemory, offset: int, length: int):
        view = slot.view[start : start + length]
        with self.lock:
            self.begun += 1
            self.queue.append(Copy(view, bytes(view), weakref.ref(memory), offset))
            while len(self.queue) > self.late:
                self.step()

    def mark(self) -> FakeEvent:
        with self.lock:
            return FakeEvent(self, self.begun)

    def close(self) -> None:
        self.run(self.begun)
        self.closed = True

    def run(self, until: int) -> None:
        with self.lock:
            while self.ended < until:
                self.step()

    def step(self) -> None:
        copy = self.queue.popleft()
        self.ended += 1
        memory = copy.memory()
        if bytes(copy.slot) != copy.wanted:
            self.faults.append("a slot was received into before its copy had ended")
        if memory is None:
            return  # the load was cut: nobody reads it
        ctypes.memmove(memory.address + copy.offset, bytes(copy.slot), len(copy.slot))
