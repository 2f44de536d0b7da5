"""Where bytes go: one small protocol for directories, and for whatever else takes chunks.

The ring asks a destination for a target per file, and a target for memory to receive each chunk
into. A target with memory of its own (a mapped file, a pinned slot, a GPU's) saves a copy.
"""

from __future__ import annotations

from typing import Protocol

from glowplug_snapshotter.plan import Item, Plan


class Room(Protocol):
    """Memory for one chunk of a target, the caller's until `close`."""

    view: memoryview

    def close(self) -> None:
        """Give the memory back; `view` must not be used any more."""


class Target(Protocol):
    """One file being filled, from several threads, chunk by chunk in any order."""

    def room(self, offset: int, length: int) -> Room | None:
        """Return memory that is the target's own, or None: then `write` brings the bytes there.

        What was received into it counts as written when the ring closes it.
        """

    def write(self, view: memoryview, offset: int) -> None:
        """Take all of `view`, which may be reused when this returns."""

    def read(self, view: memoryview, offset: int) -> None:
        """Fill `view` with what lies there; only asked for chunks that the journal names."""

    def commit(self) -> None:
        """Everything was written and proved: make it visible."""

    def close(self) -> None:
        """Let go of it, committed or not."""


class Destination(Protocol):
    """What a restore fills. Every method raises SnapshotError."""

    def prepare(self, plan: Plan) -> None:
        """Get ready to take the plan's files, or say why not."""

    def open(self, item: Item) -> Target:
        """Return the file's target; called once per file, in the plan's order."""

    def buffer(self, size: int) -> memoryview:
        """Return memory that the ring reuses for chunks: page-aligned, pinned where that helps."""

    def recorded(self, chunk: int) -> int | None:
        """Return the crc32c of a chunk that an earlier run brought, by its place in the plan."""

    def record(self, chunk: int, crc: int) -> None:
        """Remember that a chunk was written."""

    def suspend(self) -> None:
        """Stop, keeping what a next run can go on from."""

    def abandon(self) -> None:
        """Stop, leaving nothing of this run."""
