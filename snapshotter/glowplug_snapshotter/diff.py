"""Says how two snapshots differ, from their manifests alone: files, tensors and shared bytes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.events import Event
from glowplug_snapshotter.manifest import File, Manifest, Tensor
from glowplug_snapshotter.plan import open_manifest


def diff(store: str | None, a: str, b: str, endpoint: str | None) -> Event:
    """Compare two snapshots, each a digest of `store` or a manifest's own URL.

    Raises SnapshotError as `open_manifest` does.
    """
    old, old_digest = _open(store, a, endpoint)
    new, new_digest = _open(store, b, endpoint)
    before, after = _blobs(old), _blobs(new)
    shared = before.keys() & after.keys()
    return {
        "event": "result",
        "a": old_digest,
        "b": new_digest,
        "files": _changes(
            {file.path: file.blake3 for file in old.files},
            {file.path: file.blake3 for file in new.files},
        ),
        "tensors": _tensor_changes(old, new),
        "bytes": {
            "a": sum(before.values()),
            "b": sum(after.values()),
            "shared": sum(before[blob] for blob in shared),
            "added": sum(size for blob, size in after.items() if blob not in shared),
        },
    }


def _open(store: str | None, name: str, endpoint: str | None) -> tuple[Manifest, str]:
    if not name.startswith("blake3:"):
        _, manifest, digest = open_manifest(name, None, endpoint)
    elif store is not None:
        _, manifest, digest = open_manifest(store, name, endpoint)
    else:
        raise SnapshotError("InvalidURL", f"Say with --from in which store {name} lies.")
    return manifest, digest


def _blobs(manifest: Manifest) -> dict[str, int]:
    """Return the size of each content, one that several files share counted once."""
    return {file.blake3: file.size for file in manifest.files}


def _changes(old: Mapping[str, Hashable], new: Mapping[str, Hashable]) -> Event:
    both = old.keys() & new.keys()
    changed = sorted(name for name in both if old[name] != new[name])
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": changed,
        "same": len(both) - len(changed),
    }


def _tensor_changes(old: Manifest, new: Manifest) -> Event:
    """Compare tensors by name, wherever they lie.

    `changed` have another dtype or shape. `rewritten` kept them, but their bytes are not known to
    be the same: the manifest proves chunks, so a neighbour's change in one chunk counts too.
    """
    before, after = _tensors(old), _tensors(new)
    found = _changes(
        {name: (t.dtype, t.shape) for name, (t, _) in before.items()},
        {name: (t.dtype, t.shape) for name, (t, _) in after.items()},
    )
    kept = (before.keys() & after.keys()) - set(found["changed"])
    rewritten = sorted(
        name
        for name in kept
        if not _same_bytes(before[name], after[name], old.chunk_size, new.chunk_size)
    )
    return {**found, "rewritten": rewritten, "same": found["same"] - len(rewritten)}


def _tensors(manifest: Manifest) -> dict[str, tuple[Tensor, File]]:
    return {tensor.name: (tensor, file) for file in manifest.files for tensor in file.tensors}


def _same_bytes(
    old: tuple[Tensor, File], new: tuple[Tensor, File], old_chunk: int, new_chunk: int
) -> bool:
    (a, before), (b, after) = old, new
    if a.begin != b.begin or old_chunk != new_chunk:
        return False
    if before.blake3 == after.blake3 or a.begin == a.end:
        return True
    held = slice(a.begin // old_chunk, (a.end - 1) // old_chunk + 1)
    lengths = [min(file.size, held.stop * old_chunk) for file in (before, after)]
    return lengths[0] == lengths[1] and before.crc32c[held] == after.crc32c[held]
