"""Writes DLPack capsules: memory changes hands without a copy, and is freed by its last user.

The layouts are those of dlpack.h 1.0, and of its form before versions, which older consumers take.
"""

from __future__ import annotations

import atexit
import ctypes
from itertools import accumulate
from operator import mul

from glowplug_snapshotter.gpu.dtypes import DType

VERSION = (1, 0)
NAMES = {False: b"dltensor", True: b"dltensor_versioned"}  # what a capsule is called until taken


class _Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("number", ctypes.c_int32))


class _DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint32 * 2),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


_python = ctypes.PyDLL(None)  # not ctypes.pythonapi, whose signatures all of the process shares
_new = _python.PyCapsule_New
_new.restype = ctypes.py_object
_new.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
_is_named = _python.PyCapsule_IsValid
_is_named.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
_pointer = _python.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)

_lent: dict[int, tuple[_Managed | _Versioned, object]] = {}  # by the structure's address


def _forget(address: int) -> None:
    """Let go of what a capsule holds: called by its consumer, from whatever thread."""
    _lent.pop(address, None)


def _drop(capsule: int) -> None:
    """End a capsule; one that nobody took still holds its tensor."""
    for name in NAMES.values():
        if _is_named(capsule, name):
            _forget(_pointer(capsule, name))


_forget_c = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_forget)
_drop_c = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_drop)
_DELETER = ctypes.cast(_forget_c, ctypes.c_void_p).value
_DESTRUCTOR = ctypes.cast(_drop_c, ctypes.c_void_p).value


@atexit.register
def _disarm() -> None:
    """Let what outlives the interpreter (a C++ cache) be freed without calling into it."""
    for managed, _ in list(_lent.values()):
        managed.deleter = None


def capsule(
    owner: object,
    address: int,
    dtype: DType,
    shape: tuple[int, ...],
    device: tuple[int, int],
    *,
    versioned: bool,
) -> object:
    """Return a capsule over contiguous memory; `owner` is kept until its consumer is done."""
    dimensions = (ctypes.c_int64 * len(shape))(*shape)
    steps = list(accumulate(reversed(shape), mul, initial=1))[: len(shape)]
    strides = (ctypes.c_int64 * len(shape))(*reversed(steps))
    managed = _Versioned() if versioned else _Managed()
    if isinstance(managed, _Versioned):
        managed.version[:] = VERSION
    managed.deleter = _DELETER
    managed.tensor = _Tensor(
        address,
        _Device(*device),
        len(shape),
        _DataType(dtype.code, dtype.bits, 1),
        ctypes.cast(dimensions, ctypes.POINTER(ctypes.c_int64)),
        ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64)),
        0,
    )
    place = ctypes.addressof(managed)
    _lent[place] = managed, (owner, dimensions, strides)
    try:
        return _new(place, NAMES[versioned], _DESTRUCTOR)
    except BaseException:
        _forget(place)
        raise
