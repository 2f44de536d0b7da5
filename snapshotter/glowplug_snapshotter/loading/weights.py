"""`load`: a model's tensors in the order of its files, each proved before it is handed out."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from glowplug_snapshotter.backends import Entry
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.gpu.device import Device
from glowplug_snapshotter.gpu.host import Host
from glowplug_snapshotter.loading.assembly import Assembly
from glowplug_snapshotter.loading.selection import (
    Shard,
    Window,
    WindowReader,
    owners,
    shards,
    windows,
)
from glowplug_snapshotter.loading.tensor import Loaded, TorchTensor, import_torch, to_torch
from glowplug_snapshotter.manifest import Tensor
from glowplug_snapshotter.plan import (
    MANIFEST_URL,
    Item,
    Plan,
    blob_key,
    open_manifest,
    plan_source,
)
from glowplug_snapshotter.ring import Ring

AHEAD = 128 << 20  # bytes of tensors that nobody has taken yet
Select = Callable[[str], bool]
Arriving = Generator[tuple[str, Loaded | TorchTensor], None, None]


def load(
    uri: str | os.PathLike[str],
    device: object = "cpu",
    *,
    digest: str | None = None,
    endpoint: str | None = None,
    cache: str | None = None,
    framework: str | None = None,
    select: Select | None = None,
    rank: int = 0,
    world: int = 1,
) -> Arriving:
    """Return an iterator of (name, tensor), in the order of the files and of the offsets in them.

    `uri` is a snapshot (a manifest's URL, or a store's with `digest`), whose every chunk is proved
    by its crc32c before a tensor with bytes of it is handed out; or a source or a local directory
    or file, whose bytes are pinned and checked for size only. `endpoint` is an S3-compatible
    store's address, `cache` that of the node's cache of a snapshot's store.

    `device` is "cpu", "cuda" or "cuda:N". Tensors are torch's, or with `framework` "dlpack" (the
    default where torch is not installed) objects for any `from_dlpack`. They are the caller's.
    Beside them, memory is a few chunks of 16 MiB and 128 MiB of tensors, or the one tensor that is
    next.

    `select` takes a tensor's name and says whether it is wanted. With `world` readers, the one of
    number `rank` gets its share: each tensor goes to exactly one. Only the chunks that hold wanted
    tensors are read.

    What is wrong with the model raises SnapshotError here, what fails later from the iterator.
    Closing the iterator ends the transfer.
    """
    weights = open_weights(uri, digest=digest, endpoint=endpoint, cache=cache)
    return weights.load(device, framework=framework, select=select, rank=rank, world=world)


def open_weights(
    uri: str | os.PathLike[str],
    *,
    digest: str | None = None,
    endpoint: str | None = None,
    cache: str | None = None,
) -> Weights:
    """Read what there is to load. Raises SnapshotError."""
    url, name = _address(os.fspath(uri))
    if digest is not None or MANIFEST_URL.fullmatch(url):
        reader, body, digest = open_manifest(url, digest, endpoint, cache)
        items = tuple(
            Item(file.path, Entry(blob_key(file.blake3), file.size), file.crc32c)
            for file in body.files
        )
        plan = Plan(reader, items, body.chunk_size, "snapshot", digest)
        return Weights(plan, shards(plan, {file.path: file.tensors for file in body.files}))
    plan = plan_source(url, endpoint)
    if name is not None:
        plan = replace(plan, items=tuple(item for item in plan.items if item.path == name))
    return Weights(plan, shards(plan, {}))


class Weights:
    """A model's tensors as its headers tell of them, to be loaded once."""

    def __init__(self, plan: Plan, files: tuple[Shard, ...]) -> None:
        self._plan = plan
        self._files = files

    def shares(self, world: int, select: Select | None = None) -> Iterator[tuple[Tensor, int]]:
        """Yield the tensors in order, each with the number of the reader that gets it."""
        for file in self._files:
            for tensor, owner in zip(file.tensors, owners(file.tensors, world), strict=True):
                if select is None or select(tensor.name):
                    yield tensor, owner

    def load(
        self,
        device: object = "cpu",
        *,
        framework: str | None = None,
        select: Select | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Arriving:
        """Return the iterator; the arguments are those of the function `load`."""
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank} of {world}: give 0 <= rank < world")
        if framework not in (None, "torch", "dlpack"):
            raise ValueError(f"framework is {framework!r}: give 'torch' or 'dlpack'")
        torch = None if framework == "dlpack" else import_torch()
        if torch is None and framework == "torch":
            raise SnapshotError("Unsupported", "torch is not installed: install it.")

        def hand_over(loaded: Loaded) -> Loaded | TorchTensor:
            return loaded if torch is None else to_torch(torch, loaded)

        mine = {id(tensor) for tensor, owner in self.shares(world, select) if owner == rank}
        return self._stream(mine, open_device(str(device)), hand_over)

    def _stream(
        self,
        mine: set[int],
        device: Device,
        hand_over: Callable[[Loaded], Loaded | TorchTensor],
    ) -> Arriving:
        size = self._plan.chunk_size
        parts = [(f, w) for f in self._files for w in windows(f, lambda t: id(t) in mine, size)]
        plan = _windowed(self._plan, parts)
        assembly = Assembly(device, [window for _, window in parts], size, AHEAD)
        ring = Ring(plan, assembly, lambda path: None)
        mover = threading.Thread(target=_move, args=(ring, assembly), name="load", daemon=True)
        mover.start()
        try:
            yield from assembly.tensors(hand_over)
        finally:
            assembly.end(None)
            ring.cancel()
            mover.join()
            device.close()
            assembly.abandon()
            self._plan.reader.close()


def open_device(name: str) -> Device:
    """Return the device that torch would mean by `name`. Raises SnapshotError(Unsupported)."""
    kind, _, number = name.partition(":")
    if kind == "cpu":
        return Host()
    if kind != "cuda" or not (number or "0").isdigit():
        raise SnapshotError("Unsupported", f"{name!r} is no device to load to: cpu, cuda, cuda:N.")
    from glowplug_snapshotter.gpu.cuda import Cuda, current_device

    return Cuda(int(number) if number else current_device())


def _move(ring: Ring, assembly: Assembly) -> None:
    try:
        ring.run(lambda done: None)
    except SnapshotError as error:
        assembly.end(error)
    finally:
        assembly.end(None)


def _windowed(plan: Plan, parts: list[tuple[Shard, Window]]) -> Plan:
    entries = {w.item.entry.path: (shard.item.entry, w.base) for shard, w in parts}
    items = tuple(window.item for _, window in parts)
    return replace(plan, reader=WindowReader(plan.reader, entries), items=items)


def _address(uri: str) -> tuple[str, str | None]:
    """Return a URL, and the one file of it that is meant, if only one is."""
    if "://" not in uri:
        uri = "file://" + quote(os.path.abspath(uri))
    parts = urlsplit(uri)
    path = Path(unquote(parts.path))
    if parts.scheme == "file" and path.suffix == ".safetensors" and path.is_file():
        return "file://" + quote(str(path.parent)), path.name
    return uri, None
