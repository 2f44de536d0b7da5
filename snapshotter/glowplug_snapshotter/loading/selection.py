"""Which bytes a reader needs: the tensors it wants, and the stretches of chunks they lie in."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from glowplug_snapshotter.backends import Entry, Reader, Ticket
from glowplug_snapshotter.backends.local import LocalReader
from glowplug_snapshotter.checksum import crc32c
from glowplug_snapshotter.errors import SnapshotError, TransientError
from glowplug_snapshotter.gpu.dtypes import dtype_of
from glowplug_snapshotter.manifest import Tensor, safe_path
from glowplug_snapshotter.plan import Item, Plan
from glowplug_snapshotter.retry import with_retries
from glowplug_snapshotter.tensors import LENGTH_BYTES, HeaderReader

INDEX = "model.safetensors.index.json"
INDEX_LIMIT = 256 << 20  # bytes
STRIPE = 64 << 20  # bytes that one of several readers takes before the next one's turn


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file and its tensors by offset."""

    item: Item
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of whole chunks of a file, and the wanted tensors that have bytes there.

    The plan's item is the window's own; `base` is where it begins in the file.
    """

    item: Item
    base: int
    tensors: tuple[Tensor, ...]


def weight_files(plan: Plan) -> tuple[Item, ...]:
    """Return the model's safetensors files by name.

    A repository may hold the same weights twice, sharded and consolidated: its index says which
    files are the model. Without one, those of the top folder are. Raises SnapshotError(NotFound).
    """
    files = {item.path: item for item in plan.items if item.path.endswith(".safetensors")}
    index = next((item for item in plan.items if item.path == INDEX), None)
    named = _named_by(plan, index) if index is not None else None
    wanted = sorted(path for path in files if "/" not in path) if named is None else sorted(named)
    for path in wanted:
        if path not in files:
            raise SnapshotError("NotFound", f"{INDEX} names {path}, which the model lacks.")
    if not wanted:
        raise SnapshotError(
            "NotFound", f"{plan.reader.describe('')} holds no .safetensors file to load."
        )
    return tuple(files[path] for path in wanted)


def shards(plan: Plan, known: dict[str, tuple[Tensor, ...]]) -> tuple[Shard, ...]:
    """Return the files with their tensors; those not `known` by path are read from the headers.

    Raises SnapshotError where a header does not say what its bytes are.
    """
    found = []
    for item in weight_files(plan):
        tensors = known.get(item.path) or _header(plan, item)
        ordered = sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end, tensor.name))
        reached = 0
        for tensor in ordered:
            dtype_of(tensor)
            if not reached <= tensor.begin <= tensor.end <= item.entry.size:
                raise SnapshotError(
                    "InvalidManifest",
                    f"{item.path}: tensor {tensor.name!r} overlaps another one, or the file's end.",
                )
            reached = tensor.end
        found.append(Shard(item, tuple(ordered)))
    return tuple(found)


def owners(tensors: Iterable[Tensor], world: int) -> Iterator[int]:
    """Yield the reader of each tensor of a file: stripes of the file, taken in turn.

    Short stripes let all of them read at once although the tensors are wanted in order.
    """
    return (tensor.begin // STRIPE % world for tensor in tensors)


def windows(shard: Shard, wanted: Callable[[Tensor], bool], chunk_size: int) -> list[Window]:
    """Return the stretches of a file that hold the wanted tensors, by offset."""
    found: list[tuple[int, int, list[Tensor]]] = []  # first chunk, the one after the last, tensors
    for tensor in filter(wanted, shard.tensors):
        first = tensor.begin // chunk_size
        after = max(first, -(-tensor.end // chunk_size))
        if found and first <= found[-1][1]:
            start, end, tensors = found[-1]
            found[-1] = start, max(end, after), [*tensors, tensor]
        else:
            found.append((first, after, [tensor]))
    return [
        _window(shard.item, first, after, tensors, chunk_size) for first, after, tensors in found
    ]


def _window(item: Item, first: int, after: int, tensors: list[Tensor], chunk_size: int) -> Window:
    base = first * chunk_size
    size = min(after * chunk_size, item.entry.size) - base
    entry = replace(item.entry, path=f"{item.entry.path}@{base}", size=size, sha256=None)
    crcs = None if item.crc32c is None else item.crc32c[first:after]
    return Window(Item(f"{item.path}@{base}", entry, crcs), base, tuple(tensors))


class WindowReader:
    """Reads windows as if each were an object of its own."""

    def __init__(self, reader: Reader, entries: dict[str, tuple[Entry, int]]) -> None:
        self._reader = reader
        self._entries = entries  # by the window's path: the whole object, and the window's start
        self.streams = reader.streams
        if isinstance(reader, LocalReader):  # page cache and tmpfs: as fast as the cores copy
            self.streams = max(self.streams, len(os.sched_getaffinity(0)))

    def describe(self, path: str) -> str:
        """Return the whole object's name."""
        return self._reader.describe(self._entries[path][0].path if path in self._entries else path)

    def entries(self) -> list[Entry]:
        """Return the whole objects."""
        return self._reader.entries()

    def revision(self) -> str | None:
        """Return the revision behind all of them."""
        return self._reader.revision()

    def fetch(self, path: str, limit: int) -> bytes:
        """Return a small object whole."""
        return self._reader.fetch(path, limit)

    def read_into(
        self, entry: Entry, offset: int, view: memoryview, ticket: Ticket | None = None
    ) -> None:
        """Fill `view` with the window's bytes from `offset` on."""
        whole, base = self._entries[entry.path]
        self._reader.read_into(whole, base + offset, view, ticket)

    def close(self) -> None:
        """Let go of connections."""
        self._reader.close()


def _named_by(plan: Plan, index: Item) -> set[str]:
    where = plan.reader.describe(index.entry.path)
    if index.entry.size > INDEX_LIMIT:
        raise SnapshotError("Unsupported", f"{where} is over {INDEX_LIMIT} bytes.")
    data = _first(plan, index, index.entry.size)
    try:
        return {safe_path(path) for path in json.loads(data)["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SnapshotError("InvalidSource", f"{where} is not an index: {error!r}.") from None


def _header(plan: Plan, item: Item) -> tuple[Tensor, ...]:
    header = HeaderReader(item.entry.size)
    try:
        if item.entry.size >= LENGTH_BYTES:
            length = _first(plan, item, LENGTH_BYTES)
            header.feed(length)  # a length that cannot be is refused here
            size = LENGTH_BYTES + int.from_bytes(length, "little")
            header.feed(_first(plan, item, size)[LENGTH_BYTES:])
        return header.tensors()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        where = plan.reader.describe(item.entry.path)
        raise SnapshotError(
            "InvalidSource", f"{where} is not a valid safetensors file: {error}."
        ) from None


def _first(plan: Plan, item: Item, size: int) -> bytes:
    """Return a file's first bytes, proved chunk by chunk where there is a proof."""
    crcs = item.crc32c
    chunks = 0 if crcs is None else -(-size // plan.chunk_size)
    data = bytearray(min(item.entry.size, max(size, chunks * plan.chunk_size)))

    def read() -> None:
        plan.reader.read_into(item.entry, 0, memoryview(data))
        for n in range(chunks):
            chunk = memoryview(data)[n * plan.chunk_size : (n + 1) * plan.chunk_size]
            if crcs is not None and crc32c(chunk) != crcs[n]:
                where = plan.reader.describe(item.entry.path)
                raise TransientError(
                    f"Chunk {n} of {item.path} ({where}) does not match its checksum: "
                    "the stored bytes are damaged; take the snapshot again.",
                    reason="ChecksumMismatch",
                )

    if data:
        with_retries(read, threading.Event())
    return bytes(data[:size])
