"""The cache's directory. A content has its final name only when it is whole, proved and synced.

blobs/<blake3>                    whole; the file's mtime is when it was last used
partial/<blake3>                  on its way; a chunk counts if its crc32c is right
manifests/<digest>/manifest.json
running                           there while a daemon runs: found at a start, there was a crash
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.plan import blob_key, manifest_key

HEX = re.compile(r"[0-9a-f]{64}")
LOCK_PATIENCE = 30.0  # s for an earlier daemon to let go of the directory


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier daemon left: (bytes, time of last use) by blob, partial blobs, a crash."""

    blobs: dict[str, tuple[int, float]] = field(default_factory=dict)
    partial: dict[str, tuple[int, float]] = field(default_factory=dict)
    digests: tuple[str, ...] = ()
    crashed: bool = False


class Disk:
    """One daemon's directory; raises SnapshotError(NoSpace | Unavailable)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock: int | None = None

    def open(self) -> Found:
        """Take the directory, alone, and say what is in it."""
        try:
            for name in ("blobs", "partial", "manifests"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._take_lock()
            running = self.root / "running"
            crashed = running.exists()
            running.touch()
        except OSError as error:
            raise self._translate(error) from None
        digests = [f"blake3:{p.name}" for p in (self.root / "manifests").iterdir()]
        blobs, partial = dict(self._sizes("blobs")), dict(self._sizes("partial"))
        return Found(blobs, partial, tuple(sorted(digests)), crashed)

    def close(self) -> None:
        """Let go of the directory, in good order."""
        with contextlib.suppress(OSError):
            (self.root / "running").unlink()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def manifest(self, digest: str) -> bytes | None:
        """Return a manifest's bytes, None when it is not here."""
        try:
            return (self.root / manifest_key(digest)).read_bytes()
        except OSError:
            return None

    def keep_manifest(self, digest: str, data: bytes) -> None:
        """Write a manifest whole or not at all."""
        path = self.root / manifest_key(digest)
        temporary = path.with_suffix(".new")
        try:
            path.parent.mkdir(exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise self._translate(error) from None

    def drop_manifest(self, digest: str) -> None:
        """Remove a manifest."""
        shutil.rmtree((self.root / manifest_key(digest)).parent, ignore_errors=True)

    def open_blob(self, name: str, size: int) -> int | None:
        """Return a descriptor of a whole blob; None when somebody took it away, or some of it."""
        try:
            fd = os.open(self.root / blob_key(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._translate(error) from None
        if os.fstat(fd).st_size != size:
            os.close(fd)
            return None
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return fd

    def open_partial(self, name: str, size: int) -> int:
        """Return a descriptor of a blob on its way, with what an earlier run has written of it."""
        try:
            path = self.root / "partial" / name
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(fd, size)
        except OSError as error:
            raise self._translate(error) from None
        return fd

    def write(self, fd: int, view: memoryview, offset: int) -> None:
        """Write all of `view`."""
        done = 0
        try:
            while done < len(view):
                done += os.pwrite(fd, view[done:], offset + done)
        except OSError as error:
            raise self._translate(error) from None

    def commit(self, name: str, fd: int) -> None:
        """Give a proved blob its name, so that a crash of the machine cannot tear it."""
        try:
            os.fsync(fd)
            os.replace(self.root / "partial" / name, self.root / blob_key(name))
            folder = os.open(self.root / "blobs", os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._translate(error) from None

    def touch(self, name: str) -> None:
        """Note that a blob was used, for the order after a restart."""
        with contextlib.suppress(OSError):
            os.utime(self.root / blob_key(name))

    def remove(self, name: str) -> None:
        """Delete a blob, whole or on its way."""
        for path in (self.root / blob_key(name), self.root / "partial" / name):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _sizes(self, folder: str) -> Iterator[tuple[str, tuple[int, float]]]:
        for path in (self.root / folder).iterdir():
            if HEX.fullmatch(path.name):
                stat = path.stat()
                yield path.name, (stat.st_size, stat.st_mtime)

    def _take_lock(self) -> None:
        self._lock = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                return fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SnapshotError(
                        "Unavailable", f"Another daemon uses {self.root}: end it first."
                    ) from None
                time.sleep(0.1)

    def _translate(self, error: OSError) -> SnapshotError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return SnapshotError(
                "NoSpace",
                f"{self.root} is full: give the cache a smaller budget or a larger disk.",
            )
        return SnapshotError("Unavailable", f"{self.root} cannot be used: {error}.")
