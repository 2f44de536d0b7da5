"""Reads a content back from the disk to prove it: chunks of an earlier run, and the whole."""

from __future__ import annotations

import os

from glowplug_snapshotter.cache.blob import Blob
from glowplug_snapshotter.cache.content import Content
from glowplug_snapshotter.cache.slots import Slots
from glowplug_snapshotter.checksum import blake3, crc32c

EARLIER = "an earlier run"  # the source of what was found: not known any more, so like a peer's
PIECE = 1 << 20  # bytes read at a time


async def recover(blob: Blob, slots: Slots) -> None:
    """Keep the chunks that an earlier run left right."""
    if not os.fstat(blob.fd).st_blocks:
        return
    for chunk in blob.missing:
        if await slots.run(_is_right, blob, chunk):
            blob.mark(chunk, EARLIER)


async def hash_as_it_comes(blob: Blob, slots: Slots) -> str:
    """Return the blake3 of a content on its way, following its chunks in order."""
    whole = blake3()
    for chunk in range(len(blob.content.crc32c)):
        await blob.here(chunk)
        await slots.run(_feed, whole, blob.fd, blob.content, chunk)
    return whole.hexdigest()


def hash_of(fd: int, content: Content) -> str:
    """Return the blake3 of a whole content."""
    whole = blake3()
    for chunk in range(len(content.crc32c)):
        _feed(whole, fd, content, chunk)
    return whole.hexdigest()


def differs(fd: int, content: Content, chunk: int, view: memoryview) -> bool:
    """Whether a chunk on the disk is not what `view` holds."""
    offset = chunk * content.chunk_size
    for start in range(0, len(view), PIECE):
        piece = view[start : start + PIECE]
        if os.pread(fd, len(piece), offset + start) != piece:
            return True
    return False


def _is_right(blob: Blob, chunk: int) -> bool:
    """Whether a chunk on the disk has its crc32c."""
    content = blob.content
    offset, end = chunk * content.chunk_size, chunk * content.chunk_size + content.length(chunk)
    crc = 0
    for start in range(offset, end, PIECE):
        crc = crc32c(os.pread(blob.fd, min(PIECE, end - start), start), crc)
    return crc == content.crc32c[chunk]


def _feed(whole: blake3, fd: int, content: Content, chunk: int) -> None:
    offset, end = chunk * content.chunk_size, chunk * content.chunk_size + content.length(chunk)
    for start in range(offset, end, PIECE):
        whole.update(os.pread(fd, min(PIECE, end - start), start))
