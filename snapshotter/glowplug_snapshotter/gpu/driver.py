"""The CUDA driver's library through ctypes: the few calls that loading needs, errors as sentences.

libcuda comes with the driver, so it is there in every container that was given a GPU, whatever
toolkit the engine brings.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

from glowplug_snapshotter.errors import SnapshotError

LIBRARY = "libcuda.so.1"
OUT_OF_MEMORY = 2
STREAM_NON_BLOCKING = 1
EVENT_BLOCKING_SYNC, EVENT_DISABLE_TIMING = 1, 2
HOST_REGISTER_PORTABLE = 1

# The names are the library's own: cuda.h maps the plain ones to these versions.
SIGNATURES: dict[str, tuple[type, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostRegister_v2": (c_void_p, c_size_t, c_uint),
    "cuMemHostUnregister": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventDestroy_v2": (c_void_p,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
}


class Driver:
    """The loaded library, initialised. Every call raises SnapshotError when the driver refuses."""

    def __init__(self, library: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(library)
            for name, arguments in SIGNATURES.items():
                function = getattr(self._library, name)
                function.argtypes = arguments
                function.restype = c_int
        except (OSError, AttributeError) as error:
            raise SnapshotError(
                "Unsupported",
                f"There is no CUDA driver here ({error}): run where a GPU is, or load to the CPU.",
            ) from None
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: object) -> None:
        """Call one of SIGNATURES."""
        status = getattr(self._library, name)(*arguments)
        if status == OUT_OF_MEMORY:
            raise SnapshotError(
                "NoSpace",
                f"The GPU or its pinned host memory is full ({name}): leave it more room, or "
                "spread the model over more GPUs.",
            )
        if status:
            raise SnapshotError("Unavailable", f"{name} failed: {self._name(status)}.")

    def _name(self, status: int) -> str:
        text = c_char_p()
        self._library.cuGetErrorName(status, ctypes.byref(text))
        return (text.value or b"").decode() or f"error {status}"
