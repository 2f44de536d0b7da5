"""Reads the header of a safetensors file: names, dtypes, shapes and offsets of its tensors."""

from __future__ import annotations

import json
import struct

from glowplug_snapshotter.manifest import Tensor

HEADER_LIMIT = 100_000_000  # bytes; the safetensors format's own limit
LENGTH_BYTES = 8


class HeaderReader:
    """Collects a safetensors header from a file's leading chunks, fed in order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = bytearray()
        self._wanted = LENGTH_BYTES

    def feed(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the file; costs nothing once the header is whole."""
        offset = 0
        while len(self._bytes) < self._wanted and offset < len(chunk):
            piece = chunk[offset : offset + self._wanted - len(self._bytes)]
            self._bytes += piece
            offset += len(piece)
            if len(self._bytes) == LENGTH_BYTES:
                self._wanted = LENGTH_BYTES + _header_length(self._bytes, self._size)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors by offset; raises ValueError when the header is not one."""
        if len(self._bytes) < max(self._wanted, LENGTH_BYTES + 2):
            raise ValueError("the file ends before its header does")
        header = json.loads(bytes(self._bytes[LENGTH_BYTES:]))
        start = self._wanted
        found = [
            Tensor(
                name,
                info["dtype"],
                tuple(info["shape"]),
                start + info["data_offsets"][0],
                start + info["data_offsets"][1],
            )
            for name, info in header.items()
            if name != "__metadata__"
        ]
        if any(tensor.end > self._size for tensor in found):
            raise ValueError("a tensor reaches past the end of the file")
        return tuple(sorted(found, key=lambda tensor: (tensor.begin, tensor.name)))


def _header_length(head: bytearray, size: int) -> int:
    (length,) = struct.unpack("<Q", head)
    if length > min(HEADER_LIMIT, size - LENGTH_BYTES):
        raise ValueError(f"its header claims {length} bytes")
    return int(length)
