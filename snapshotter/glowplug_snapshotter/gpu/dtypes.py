"""The dtypes of safetensors: their widths, and their names in DLPack and torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.manifest import Tensor

# DLPack's type codes
INT, UINT, FLOAT, BFLOAT, COMPLEX, BOOL = 0, 1, 2, 4, 5, 6


@dataclass(frozen=True, slots=True)
class DType:
    """`packed` elements share one element of torch, which has no type for less than a byte."""

    bits: int
    code: int
    torch: str | None
    packed: int = 1


DTYPES = {
    "BOOL": DType(8, BOOL, "bool"),
    "U8": DType(8, UINT, "uint8"),
    "U16": DType(16, UINT, "uint16"),
    "U32": DType(32, UINT, "uint32"),
    "U64": DType(64, UINT, "uint64"),
    "I8": DType(8, INT, "int8"),
    "I16": DType(16, INT, "int16"),
    "I32": DType(32, INT, "int32"),
    "I64": DType(64, INT, "int64"),
    "F16": DType(16, FLOAT, "float16"),
    "F32": DType(32, FLOAT, "float32"),
    "F64": DType(64, FLOAT, "float64"),
    "BF16": DType(16, BFLOAT, "bfloat16"),
    "C64": DType(64, COMPLEX, "complex64"),
    "F8_E4M3": DType(8, 10, "float8_e4m3fn"),
    "F8_E4M3FNUZ": DType(8, 11, "float8_e4m3fnuz"),
    "F8_E5M2": DType(8, 12, "float8_e5m2"),
    "F8_E5M2FNUZ": DType(8, 13, "float8_e5m2fnuz"),
    "F8_E8M0": DType(8, 14, "float8_e8m0fnu"),
    "F6_E2M3": DType(6, 15, None),
    "F6_E3M2": DType(6, 16, None),
    "F4": DType(4, 17, "float4_e2m1fn_x2", packed=2),
}


def dtype_of(tensor: Tensor) -> DType:
    """Return a tensor's dtype once its bytes fit its shape.

    Raises SnapshotError: Unsupported for an unknown dtype, InvalidManifest for bytes that do not
    fit.
    """
    dtype = DTYPES.get(tensor.dtype)
    if dtype is None:
        raise SnapshotError(
            "Unsupported",
            f"Tensor {tensor.name!r} has the dtype {tensor.dtype!r}, which is not one of "
            f"{', '.join(DTYPES)}.",
        )
    if not all(isinstance(n, int) and n >= 0 for n in tensor.shape):
        raise SnapshotError("InvalidManifest", f"Tensor {tensor.name!r} has no possible shape.")
    bits = dtype.bits * math.prod(tensor.shape)
    if bits != 8 * (tensor.end - tensor.begin):
        raise SnapshotError(
            "InvalidManifest",
            f"Tensor {tensor.name!r} of shape {list(tensor.shape)} and dtype {tensor.dtype} takes "
            f"{bits} bits, but has {tensor.end - tensor.begin} bytes.",
        )
    return dtype
