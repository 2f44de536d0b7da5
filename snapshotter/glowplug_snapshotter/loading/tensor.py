"""A loaded tensor, as anything that speaks DLPack takes it: numpy, JAX, CuPy, torch."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.gpu.device import Memory
from glowplug_snapshotter.gpu.dlpack import capsule
from glowplug_snapshotter.gpu.dtypes import DTYPES, DType
from glowplug_snapshotter.manifest import Tensor


class Loaded:
    """A tensor whose bytes are all there and proved; contiguous, aligned to 256 bytes.

    Its memory is freed when neither this object nor anything made from it is left.
    """

    __slots__ = ("_device", "_memory", "dtype", "name", "nbytes", "shape")

    def __init__(self, tensor: Tensor, memory: Memory | None, device: tuple[int, int]) -> None:
        self.name = tensor.name
        self.dtype = tensor.dtype  # as safetensors names it
        self.shape = tensor.shape
        self.nbytes = tensor.end - tensor.begin
        self._memory = memory  # None: a tensor without bytes
        self._device = device

    @property
    def view(self) -> memoryview:
        """Its bytes, on the host. Raises SnapshotError where the host cannot see them."""
        view = memoryview(b"") if self._memory is None else self._memory.view
        if view is None:
            raise SnapshotError("Unsupported", "The tensor's bytes are in a GPU's memory.")
        return view

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        # Every copy has ended, so no stream has to wait.
        return self._export(DTYPES[self.dtype], self.shape, max_version, dl_device, copy)

    def flat(self) -> Flat:
        """Return its bytes as a one-dimensional tensor of U8."""
        return Flat(self)

    def _export(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        max_version: tuple[int, int] | None,
        dl_device: tuple[int, int] | None,
        copy: bool | None,
    ) -> object:
        if copy or dl_device not in (None, self._device):
            raise BufferError("a loaded tensor is handed over where it lies, without a copy")
        versioned = max_version is not None and max_version[0] >= 1
        address = self._memory.address if self._memory is not None else 0
        return capsule(self._memory, address, dtype, shape, self._device, versioned=versioned)


class Flat:
    """The bytes of a tensor: what hands over dtypes that a consumer's DLPack does not know."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._loaded.__dlpack_device__()

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        shape = (self._loaded.nbytes,)
        return self._loaded._export(DTYPES["U8"], shape, max_version, dl_device, copy)


class TorchTensor(Protocol):
    """What is used of torch.Tensor."""

    def view(self, *what: object) -> TorchTensor:
        """See the same memory as another dtype or shape."""


class Torch(Protocol):
    """What is used of torch."""

    def from_dlpack(self, exporter: object) -> TorchTensor:
        """Take a tensor over."""

    def empty(self, size: tuple[int, ...], *, dtype: object, device: str) -> TorchTensor:
        """Make a tensor."""


def import_torch() -> Torch | None:
    """Return torch where it is installed."""
    try:
        return cast(Torch, importlib.import_module("torch"))
    except ImportError:
        return None


def to_torch(torch: Torch, loaded: Loaded) -> TorchTensor:
    """Hand a tensor over to torch, which frees it. Raises SnapshotError(Unsupported)."""
    dtype, shape = torch_type(torch, loaded.name, loaded.dtype, loaded.shape)
    if not loaded.nbytes:
        kind, number = loaded.__dlpack_device__()
        return torch.empty(shape, dtype=dtype, device="cpu" if kind == 1 else f"cuda:{number}")
    return torch.from_dlpack(loaded.flat()).view(dtype).view(shape)


def torch_type(
    torch: Torch, name: str, dtype: str, shape: tuple[int, ...]
) -> tuple[object, tuple[int, ...]]:
    """Return torch's dtype and shape for a tensor. Raises SnapshotError(Unsupported)."""
    known = DTYPES[dtype]
    found = getattr(torch, known.torch, None) if known.torch else None
    if found is None or (known.packed > 1 and (not shape or shape[-1] % known.packed)):
        raise SnapshotError(
            "Unsupported",
            f"Tensor {name!r} of shape {list(shape)} has the dtype {dtype}, which this version of "
            "torch cannot hold: use a newer one, or framework='dlpack'.",
        )
    if known.packed > 1:
        shape = (*shape[:-1], shape[-1] // known.packed)
    return found, shape
