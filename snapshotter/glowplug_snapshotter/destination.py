"""The directory that a restore fills: files get their names only when they are whole and proved."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from glowplug_snapshotter.errors import SnapshotError

PARTIAL = ".glowplug-partial"  # below the directory, so that a rename stays on its file system
MARKER = ".glowplug-restored.json"  # written last; the launcher reads it too


class Destination:
    """Files written under temporary names and renamed when complete."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._partial = root / PARTIAL

    def prepare(self, size: int) -> None:
        """Clear what an earlier run left and check that `size` bytes fit."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._forget_earlier()
            self._partial.mkdir()
            free = os.statvfs(self.root)
        except OSError as error:
            raise self.translate(error) from None
        room = free.f_bavail * free.f_frsize
        if size > room:
            raise SnapshotError(
                "NoSpace",
                f"{self.root} has {room} bytes free and the model needs {size}: "
                "raise the Pod's memory limit or the volume's size.",
            )

    def create(self, path: str, size: int) -> int:
        """Open a file of `size` bytes under its temporary name; return its descriptor."""
        temporary = self._partial / path
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            os.ftruncate(fd, size)
        except OSError as error:
            raise self.translate(error) from None
        return fd

    def write(self, fd: int, view: memoryview, offset: int) -> None:
        """Write all of `view`."""
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(fd, view[done:], offset + done)
        except OSError as error:
            raise self.translate(error) from None

    def check_sha256(self, path: str, fd: int, expected: str) -> None:
        """Compare a whole file with the checksum that its source states."""
        os.lseek(fd, 0, os.SEEK_SET)
        with open(fd, "rb", closefd=False) as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != expected:
            raise SnapshotError(
                "ChecksumMismatch",
                f"{path} arrived with sha256 {actual}, its source states {expected}.",
            )

    def commit(self, path: str) -> None:
        """Give a finished file its name."""
        final = self.root / path
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._partial / path, final)
        except OSError as error:
            raise self.translate(error) from None

    def finish(self, marker: dict[str, Any]) -> None:
        """Remove the temporary directory and say that everything is there."""
        shutil.rmtree(self._partial, ignore_errors=True)
        temporary = self.root / f"{MARKER}.new"
        try:
            temporary.write_text(json.dumps(marker))
            os.replace(temporary, self.root / MARKER)
        except OSError as error:
            raise self.translate(error) from None

    def abandon(self) -> None:
        """Remove everything that has no final name."""
        shutil.rmtree(self._partial, ignore_errors=True)

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

    def _forget_earlier(self) -> None:
        marker = self._marker()
        with contextlib.suppress(FileNotFoundError):
            (self.root / MARKER).unlink()
        for file in marker["files"] if marker else ():
            with contextlib.suppress(FileNotFoundError):
                (self.root / file["path"]).unlink()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _marker(self) -> dict[str, Any] | None:
        try:
            marker = json.loads((self.root / MARKER).read_text())
        except (OSError, ValueError):
            return None
        return marker if isinstance(marker, dict) and "files" in marker else None

    def translate(self, error: OSError) -> SnapshotError:
        """Say what a failing file system means for the restore."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return SnapshotError(
                "NoSpace",
                f"{self.root} is full: raise the Pod's memory limit or the volume's size.",
            )
        return SnapshotError("Unavailable", f"{self.root} cannot be written: {error}.")
