"""Kubernetes events: what happened, in sentences, each said once.

An event is a courtesy: one that cannot be written is logged, and the work goes on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from glowplug.act.refs import Ref
from glowplug.act.writer import Writer
from glowplug.api import meta
from glowplug.kube import EVENTS, AlreadyExists, ApiError

log = logging.getLogger(__name__)

QUIET_S = 600.0
"""The same sentence about the same object is not repeated within this time."""
_LONGEST_NOTE = 1024  # bound of events.k8s.io


class Recorder:
    """Writes events as `instance`; `clock` gives seconds since the epoch."""

    def __init__(self, writer: Writer, instance: str, clock: Callable[[], float]) -> None:
        self._writer = writer
        self._instance = instance
        self._clock = clock
        self._said: dict[tuple[str, str, str], float] = {}

    async def normal(self, ref: Ref, reason: str, note: str, action: str = "Reconcile") -> None:
        """Say what was done."""
        await self._emit(ref, "Normal", reason, note, action)

    async def warning(self, ref: Ref, reason: str, note: str, action: str = "Reconcile") -> None:
        """Say what is wrong and what to do about it."""
        await self._emit(ref, "Warning", reason, note, action)

    async def _emit(
        self, ref: Ref, kind: Literal["Normal", "Warning"], reason: str, note: str, action: str
    ) -> None:
        now = self._clock()
        note = note[:_LONGEST_NOTE]
        if not self._is_news((ref.uid, reason, note), now):
            return
        told = "\0".join((ref.uid, reason, note, self._instance, f"{now:.6f}"))
        namespace = ref.namespace or "default"
        body = {
            "metadata": {
                "name": f"{ref.name}.{hashlib.sha256(told.encode()).hexdigest()[:16]}",
                "namespace": namespace,
            },
            "eventTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": kind,
            "reason": reason,
            "note": note,
            "action": action,
            "regarding": ref.regarding(),
            "reportingController": f"{meta.GROUP}/operator",
            "reportingInstance": self._instance,
        }
        try:
            await self._writer.create(EVENTS, body)
        except AlreadyExists:
            pass
        except ApiError as error:
            log.warning("event left out: %s", error, extra={"object": str(ref), "reason": reason})

    def _is_news(self, key: tuple[str, str, str], now: float) -> bool:
        self._said = {told: at for told, at in self._said.items() if now - at < QUIET_S}
        if key in self._said:
            return False
        self._said[key] = now
        return True
