"""Reads a directory: file:// sources, mounted volumes, and stores kept on a disk."""

from __future__ import annotations

import os
from pathlib import Path

from glowplug_snapshotter.backends import Entry, Ticket
from glowplug_snapshotter.errors import SnapshotError


class LocalReader:
    """Files below `root`; a file that changes after it was listed is noticed by its stat."""

    streams = 2

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._name = name.rstrip("/")

    def describe(self, path: str) -> str:
        """Return the file's URL."""
        return f"{self._name}/{path}"

    def revision(self) -> str | None:
        """Return None: a directory has no revisions."""
        return None

    def entries(self) -> list[Entry]:
        """Return all regular files, hidden ones left out."""
        if not self._root.is_dir():
            raise SnapshotError("NotFound", f"{self._name} is not a directory.")
        found = []
        for folder, folders, names in os.walk(self._root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                if not name.startswith(".") and path.is_file():
                    stat = path.stat()
                    relative = path.relative_to(self._root).as_posix()
                    found.append(Entry(relative, stat.st_size, _stamp(stat)))
        return sorted(found, key=lambda entry: entry.path)

    def fetch(self, path: str, limit: int) -> bytes:
        """Return the file's bytes."""
        try:
            with open(self._root / path, "rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise self._translate(error, path) from None
        if len(data) > limit:
            raise SnapshotError("Unsupported", f"{self.describe(path)} is over {limit} bytes.")
        return data

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def read_into(
        self, entry: Entry, offset: int, view: memoryview, ticket: Ticket | None = None
    ) -> None:
        """Fill `view` from the file."""
        try:
            fd = os.open(self._root / entry.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._read(fd, entry, offset, view)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._translate(error, entry.path) from None

    def _read(self, fd: int, entry: Entry, offset: int, view: memoryview) -> None:
        stat = os.fstat(fd)
        changed = entry.validator is not None and _stamp(stat) != entry.validator
        if changed or stat.st_size != entry.size:
            raise SnapshotError(
                "SourceChanged", f"{self.describe(entry.path)} was changed while it was read."
            )
        done = 0
        while done < len(view):
            count = os.preadv(fd, [view[done:]], offset + done)
            if count == 0:
                raise SnapshotError(
                    "SourceChanged", f"{self.describe(entry.path)} became shorter in reading."
                )
            done += count

    def _translate(self, error: OSError, path: str) -> SnapshotError:
        if isinstance(error, FileNotFoundError):
            return SnapshotError("NotFound", f"{self.describe(path)} does not exist.")
        if isinstance(error, PermissionError):
            return SnapshotError("Forbidden", f"{self.describe(path)} may not be read: {error}.")
        return SnapshotError("Unavailable", f"{self.describe(path)}: {error}.")


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"
