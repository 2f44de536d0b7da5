"""The launcher's zipapp in a ConfigMap of each namespace with models.

All models of the namespace own it together, so it leaves with the last of them.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from glowplug.act.refs import Ref
from glowplug.act.writer import Writer
from glowplug.api import meta
from glowplug.kube import CONFIGMAPS, Json

FIELD_MANAGER = "glowplug-launcher"
ENV_PYZ = "GLOWPLUG_LAUNCHER_PYZ"
_FILE = meta.LAUNCHER_PATH.rsplit("/", 1)[1]
_LARGEST = 2**20 - 2**14  # a ConfigMap holds 1 MiB, its metadata included
_TRUST_S = 60.0


class LauncherMissingError(Exception):
    """The operator was built without the launcher; the sentence says where it was sought."""


def load_launcher() -> bytes:
    """The zipapp that the image build made: at $GLOWPLUG_LAUNCHER_PYZ or in the package."""
    named = os.environ.get(ENV_PYZ)
    file = Path(named) if named else resources.files("glowplug_snapshotter") / _FILE
    try:
        pyz = file.read_bytes()
    except OSError as error:
        raise LauncherMissingError(
            f"No launcher at {file}: {error.strerror or error}. Build it with `python -m "
            f"glowplug_snapshotter.launcher.build FILE` and set {ENV_PYZ}=FILE."
        ) from error
    if len(pyz) > _LARGEST:
        raise LauncherMissingError(f"{file} has {len(pyz)} bytes, too many for a ConfigMap.")
    return pyz


def launcher_body(namespace: str, owners: Sequence[Ref], pyz: bytes) -> Json:
    """The ConfigMap, owned by every model of the namespace."""
    return {
        "metadata": {
            "name": meta.LAUNCHER_CONFIGMAP,
            "namespace": namespace,
            "labels": {meta.LABEL_MANAGED_BY: meta.MANAGER},
            "ownerReferences": [
                owner.owner(controller=False) for owner in sorted(owners, key=lambda o: o.uid)
            ],
        },
        "binaryData": {_FILE: base64.b64encode(pyz).decode()},
    }


class Launchers:
    """Keeps the ConfigMaps; what was written is trusted for a minute. `clock` is monotonic."""

    def __init__(self, writer: Writer, pyz: bytes, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._pyz = pyz
        self._clock = clock
        self._written: dict[str, tuple[frozenset[str], float]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def ensure(
        self, model: Ref, neighbours: Callable[[], Sequence[Ref]], *, again: bool = True
    ) -> None:
        """Make the ConfigMap for a model with Pods; without `again`, once in this life.

        neighbours: all models of its namespace, itself included; asked only before a write.
        """
        # One at a time, each with the owners known by then: a herd's first writes for them all.
        async with self._locks.setdefault(model.namespace, asyncio.Lock()):
            known, until = self._written.get(model.namespace, (frozenset(), 0.0))
            if model.uid in known and (self._clock() < until or not again):
                return
            owners = neighbours()
            uids = frozenset(owner.uid for owner in owners)
            body = launcher_body(model.namespace, owners, self._pyz)
            await self._writer.apply(CONFIGMAPS, body, field_manager=FIELD_MANAGER)
            self._written[model.namespace] = (uids, self._clock() + _TRUST_S)
