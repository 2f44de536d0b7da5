"""crc32c and blake3, without what their packages import beside them.

`import crc32c` brings in importlib.metadata, csv and email: a fifth of a cold start's CPU before
the first byte. Its extension module alone takes a millisecond.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from typing import Protocol, cast

from blake3 import blake3

__all__ = ["blake3", "crc32c"]


class _CRC32C(Protocol):
    def __call__(self, data: bytes | bytearray | memoryview, value: int = 0, /) -> int: ...


def _find() -> _CRC32C:
    package = importlib.util.find_spec("crc32c")
    folder = os.path.dirname(package.origin or "") if package is not None else ""
    spec = importlib.machinery.PathFinder.find_spec("_crc32c", [folder])
    if spec is None or spec.loader is None:
        from crc32c import crc32c as packaged

        return cast(_CRC32C, packaged)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(_CRC32C, module.crc32c)


crc32c = _find()
