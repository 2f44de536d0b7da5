"""The directory that a restore fills: files get their names only when they are whole and proved."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from glowplug_snapshotter.destinations import Room, Target
from glowplug_snapshotter.destinations.files import WORTH_CARE, DirectFile, PlainFile
from glowplug_snapshotter.destinations.journal import Journal
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.launcher.weights import MARKER, file_system
from glowplug_snapshotter.manifest import safe_path
from glowplug_snapshotter.plan import Item, Plan

PARTIAL = ".glowplug-partial"  # below the directory, so that a rename stays on its file system
JOURNAL = ".glowplug-journal"  # beside it: which chunks are there


class Directory:
    """Files written under temporary names and renamed when complete."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._partial = root / PARTIAL
        self._journal: Journal | None = None
        self._in_memory = False

    def prepare(self, plan: Plan) -> None:
        """Go on from what an earlier run of the same plan left, or clear it; check for room."""
        with self._translated():
            self.root.mkdir(parents=True, exist_ok=True)
            self._in_memory = file_system(str(self.root)) == "tmpfs"
            paths = tuple(item.path for item in plan.items)
            journal = Journal.load(self.root / JOURNAL)
            if journal is not None and journal.fingerprint == plan.fingerprint:
                self._journal = journal
                with contextlib.suppress(FileNotFoundError):
                    (self.root / MARKER).unlink()
                self._take_back(plan.items)
            else:
                self._forget(journal.files if journal else ())
                if journal is not None:
                    journal.close()
                self._partial.mkdir()
                self._journal = Journal.create(self.root / JOURNAL, plan.fingerprint, paths)
            free = os.statvfs(self.root)
        room = free.f_bavail * free.f_frsize
        needed = plan.size - min(plan.size, len(self._journal.chunks) * plan.chunk_size)
        if needed > room:
            self.abandon()
            raise SnapshotError(
                "NoSpace",
                f"{self.root} has {room} bytes free and the model needs {needed}: "
                "raise the Pod's memory limit or the volume's size.",
            )

    def open(self, item: Item) -> Target:
        """Open the file under its temporary name."""
        temporary = self._partial / item.path
        size = item.entry.size
        kind = self._kind() if size >= WORTH_CARE else PlainFile
        with self._translated():
            temporary.parent.mkdir(parents=True, exist_ok=True)
            file = kind(temporary, size, lambda: self._name(item.path), durable=not self._in_memory)
        return _Translating(self, file, item)

    def buffer(self, size: int) -> memoryview:
        """Return page-aligned memory, as O_DIRECT wants it."""
        return memoryview(mmap.mmap(-1, max(size, mmap.PAGESIZE)))[:size]

    def recorded(self, chunk: int) -> int | None:
        """Return the crc32c that the journal has for a chunk."""
        return None if self._journal is None else self._journal.chunks.get(chunk)

    def record(self, chunk: int, crc: int) -> None:
        """Note in the journal that a chunk was written."""
        if self._journal is not None:
            with self._translated():
                self._journal.record(chunk, crc)

    def finish(self, marker: dict[str, Any]) -> None:
        """Say that everything is there, and remove what is temporary."""
        temporary = self.root / f"{MARKER}.new"
        with self._translated():
            if not self._in_memory:
                for folder in {(self.root / f["path"]).parent for f in marker["files"]}:
                    _sync(folder)
            temporary.write_text(json.dumps(marker))
            if not self._in_memory:
                _sync(temporary)
            self._clear()
            os.replace(temporary, self.root / MARKER)
            (self.root / JOURNAL).unlink()
        self.suspend()

    def suspend(self) -> None:
        """Keep what was written, and the journal of it, for the next run."""
        if self._journal is not None:
            self._journal.close()

    def abandon(self) -> None:
        """Remove everything that this run wrote."""
        with contextlib.suppress(OSError):
            self._forget(self._journal.files if self._journal else ())
        self.suspend()

    def complete(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """Return the result an earlier run left, if its files for `identity` are all there."""
        marker = self._marker()
        if marker is None or marker.get("identity") != identity:
            return None
        for file in marker["files"]:
            try:
                if (self.root / file["path"]).stat().st_size != file["size"]:
                    return None
            except OSError:
                return None
        result: dict[str, Any] = marker["result"]
        return result

    def _kind(self) -> type[PlainFile]:
        if not self._in_memory:
            return DirectFile
        from glowplug_snapshotter.destinations.mapped import MappedFile

        return MappedFile

    def _name(self, path: str) -> None:
        final = self.root / path
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._partial / path, final)

    def _take_back(self, items: Iterable[Item]) -> None:
        """Make files that an earlier run had named temporary again: all are checked alike."""
        for item in items:
            temporary = self._partial / item.path
            with contextlib.suppress(FileNotFoundError):
                if not temporary.exists():
                    temporary.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(self.root / item.path, temporary)

    def _forget(self, paths: Iterable[str]) -> None:
        """Remove what earlier runs left: files of theirs, temporary ones, marker and journal."""
        marker = self._marker()
        for name in (MARKER, JOURNAL):
            with contextlib.suppress(FileNotFoundError):
                (self.root / name).unlink()
        known = [file["path"] for file in marker["files"]] if marker else []
        for path in {*known, *paths}:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError):
                (self.root / safe_path(path)).unlink()
        self._clear()

    def _clear(self) -> None:
        import shutil

        shutil.rmtree(self._partial, ignore_errors=True)

    def _marker(self) -> dict[str, Any] | None:
        try:
            marker = json.loads((self.root / MARKER).read_text())
        except (OSError, ValueError):
            return None
        return marker if isinstance(marker, dict) and "files" in marker else None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say what a failing file system means for the restore."""
        try:
            yield
        except OSError as error:
            raise self.translate(error) from None

    def translate(self, error: OSError) -> SnapshotError:
        """Return the error that a failing file system means."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return SnapshotError(
                "NoSpace",
                f"{self.root} is full: raise the Pod's memory limit or the volume's size.",
            )
        return SnapshotError("Unavailable", f"{self.root} cannot be written: {error}.")


class _Translating:
    """A file of the directory whose errors are SnapshotErrors."""

    def __init__(self, directory: Directory, file: PlainFile, item: Item) -> None:
        self._directory = directory
        self._file = file
        self._item = item

    def room(self, offset: int, length: int) -> Room | None:
        with self._directory._translated():
            return self._file.room(offset, length)

    def write(self, view: memoryview, offset: int) -> None:
        with self._directory._translated():
            self._file.write(view, offset)

    def read(self, view: memoryview, offset: int) -> None:
        with self._directory._translated():
            self._file.read(view, offset)

    def commit(self) -> None:
        with self._directory._translated():
            if self._item.entry.sha256 is not None:
                self._check_sha256(self._item.entry.sha256)
            self._file.commit()

    def close(self) -> None:
        self._file.close()

    def _check_sha256(self, expected: str) -> None:
        import hashlib

        path = self._directory._partial / self._item.path
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected:
            raise SnapshotError(
                "ChecksumMismatch",
                f"{self._item.path} arrived with sha256 {actual}, its source states {expected}.",
            )


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
