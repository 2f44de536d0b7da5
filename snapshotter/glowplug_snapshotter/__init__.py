"""Takes and restores model snapshots, and starts engines on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glowplug_snapshotter.errors import SnapshotError, TransientError

if TYPE_CHECKING:
    from glowplug_snapshotter.loading.weights import Weights, load, open_weights

__all__ = ["SnapshotError", "TransientError", "Weights", "load", "open_weights"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from glowplug_snapshotter.loading import weights  # only who loads pays for it

    return getattr(weights, name)
