"""Says what a snapshot holds without reading its blobs."""

from __future__ import annotations

from glowplug_snapshotter.events import Event
from glowplug_snapshotter.plan import open_manifest


def inspect(url: str, digest: str | None, endpoint: str | None) -> Event:
    """Return source, sizes and tensors of the snapshot, its manifest proved by the digest."""
    _, manifest, digest = open_manifest(url, digest, endpoint)
    return {
        "event": "result",
        "digest": digest,
        "source": manifest.source,
        "revision": manifest.revision,
        "bytes": manifest.size,
        "files": [
            {
                "path": file.path,
                "bytes": file.size,
                "blake3": file.blake3,
                "chunks": len(file.crc32c),
                "tensors": [
                    {"name": t.name, "dtype": t.dtype, "shape": t.shape} for t in file.tensors
                ],
            }
            for file in manifest.files
        ],
    }
