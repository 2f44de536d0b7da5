"""One CUDA device: pinned slots, and copies on a stream of its own.

The primary context is the one that torch uses, so that an address is valid on both sides.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys
import threading
import weakref
from collections.abc import Callable

from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.gpu import driver as cuda
from glowplug_snapshotter.gpu.device import Event, Memory, Slot
from glowplug_snapshotter.gpu.driver import Driver
from glowplug_snapshotter.gpu.host import HostMemory

KDL_CUDA = 2


class Context:
    """A device's primary context, held as long as anything in it.

    Each call leaves the thread's current context as it was: torch keeps its own there.
    """

    def __init__(self, driver: Driver, number: int) -> None:
        device, handle = ctypes.c_int(), ctypes.c_void_p()
        driver.call("cuDeviceGet", ctypes.byref(device), number)
        driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(handle), device.value)
        self._driver = driver
        self._handle = handle.value
        weakref.finalize(self, _release, driver, device.value).atexit = False

    def call(self, name: str, *arguments: object) -> None:
        """Call the driver in this context; raises SnapshotError."""
        self._driver.call("cuCtxPushCurrent_v2", self._handle)
        try:
            self._driver.call(name, *arguments)
        finally:
            self._driver.call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))

    def free_with(self, owner: object, name: str, handle: int) -> Callable[[], object]:
        """Have what frees a handle called when its owner is gone; return it, to call it sooner.

        Not at the end of the process, which frees all: torch may still be using the memory then.
        """
        free = weakref.finalize(owner, self._free, name, handle)
        free.atexit = False
        return free

    def _free(self, name: str, handle: int) -> None:
        with contextlib.suppress(SnapshotError):  # nobody is there to hear it
            self.call(name, handle)


def _release(driver: Driver, device: int) -> None:
    with contextlib.suppress(SnapshotError):
        driver.call("cuDevicePrimaryCtxRelease_v2", device)


class CudaMemory:
    """Device memory, freed with its last reference: the driver waits for whoever still reads it."""

    view: memoryview | None = None

    def __init__(self, context: Context, size: int) -> None:
        address = ctypes.c_uint64()
        context.call("cuMemAlloc_v2", ctypes.byref(address), size)
        self.address = address.value
        context.free_with(self, "cuMemFree_v2", self.address)


class PinnedSlot:
    """Host pages that the device reads by itself.

    They are registered rather than allocated by the driver: unregistered, they stay valid for a
    late thread that still writes there.
    """

    def __init__(self, context: Context, size: int) -> None:
        self._pages = HostMemory(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE, pages=True)
        self.view = self._pages.view
        self.address = self._pages.address
        context.call(
            "cuMemHostRegister_v2", self.address, len(self.view), cuda.HOST_REGISTER_PORTABLE
        )
        self.unpin = context.free_with(self, "cuMemHostUnregister", self.address)


class CudaEvent:
    """An event of the driver; waiting for it leaves the core to others."""

    def __init__(self, context: Context, stream: int) -> None:
        self._context = context
        handle = ctypes.c_void_p()
        flags = cuda.EVENT_BLOCKING_SYNC | cuda.EVENT_DISABLE_TIMING
        context.call("cuEventCreate", ctypes.byref(handle), flags)
        self._handle = handle.value or 0
        context.free_with(self, "cuEventDestroy_v2", self._handle)
        context.call("cuEventRecord", self._handle, stream)

    def wait(self) -> None:
        """Return when every copy before it has ended."""
        self._context.call("cuEventSynchronize", self._handle)


class Cuda:
    """A device by its number among those that the process sees."""

    def __init__(self, number: int, driver: Driver | None = None) -> None:
        self.dlpack = (KDL_CUDA, number)
        self._context = Context(driver or Driver(), number)
        stream = ctypes.c_void_p()
        self._context.call("cuStreamCreate", ctypes.byref(stream), cuda.STREAM_NON_BLOCKING)
        self._stream = stream.value or 0
        self._end = self._context.free_with(self, "cuStreamDestroy_v2", self._stream)
        self._slots: list[PinnedSlot] = []
        self._lock = threading.Lock()

    def allocate(self, size: int) -> Memory:
        """Return device memory."""
        return CudaMemory(self._context, size)

    def slot(self, size: int) -> Slot:
        """Return pinned host memory."""
        slot = PinnedSlot(self._context, size)
        with self._lock:
            self._slots.append(slot)
        return slot

    def copy(self, slot: Slot, start: int, memory: Memory, offset: int, length: int) -> None:
        """Begin to copy."""
        source = ctypes.addressof(ctypes.c_char.from_buffer(slot.view)) + start
        target = memory.address + offset
        self._context.call("cuMemcpyHtoDAsync_v2", target, source, length, self._stream)

    def mark(self) -> Event:
        """Return the event behind all copies so far."""
        return CudaEvent(self._context, self._stream)

    def close(self) -> None:
        """Wait for the copies under way, then give stream and slots back."""
        with self._lock:
            slots, self._slots = self._slots, []
        with contextlib.suppress(SnapshotError):
            self._context.call("cuStreamSynchronize", self._stream)
        self._end()
        for slot in slots:
            slot.unpin()


def current_device() -> int:
    """Return the device that torch calls `cuda` in this thread; 0 where torch is not in use."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.current_device())
