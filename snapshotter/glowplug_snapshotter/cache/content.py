"""What a manifest says of one content: its size, and the checksum of each chunk."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.manifest import File

LARGEST_CHUNK = 64 * 1024 * 1024  # bytes; a daemon keeps a few buffers of this size at most


@dataclass(frozen=True, slots=True)
class Content:
    """One blob. `digest` is of a manifest that names it, `blake3:<hex>`."""

    blake3: str
    size: int
    chunk_size: int
    crc32c: tuple[int, ...]
    digest: str

    def length(self, chunk: int) -> int:
        """Bytes of a chunk."""
        return min(self.chunk_size, self.size - chunk * self.chunk_size)

    @property
    def last(self) -> int:
        """The number of the last chunk; -1 when there is none."""
        return len(self.crc32c) - 1


def parse(digest: str, data: bytes) -> list[Content]:
    """All blobs of a manifest, in the order of a restore: small files first, then the weights.

    Raises SnapshotError: DigestMismatch, InvalidManifest, Unsupported.
    """
    where = f"The manifest {digest}"
    if manifests.digest_of(data) != digest:
        raise SnapshotError("DigestMismatch", f"{where} is damaged.")
    manifest = manifests.decode(data, where)
    if manifest.chunk_size > LARGEST_CHUNK:
        raise SnapshotError(
            "Unsupported",
            f"{digest} has chunks of {manifest.chunk_size} bytes: the cache takes up to "
            f"{LARGEST_CHUNK}.",
        )
    files = sorted(manifest.files, key=_order)
    return [
        Content(file.blake3, file.size, manifest.chunk_size, file.crc32c, digest) for file in files
    ]


def _order(file: File) -> tuple[bool, str]:
    return file.path.endswith(".safetensors"), file.path
