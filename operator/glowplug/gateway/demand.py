"""The demand stream: what each model is asked for, told to every operator that listens.

One JSON object a line: {gateway, epoch, seq, models, firsts}. The first line holds every model,
later ones what changed; a line comes at least once per `period` even when nothing did.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import orjson

from glowplug.gateway.fleet import Fleet
from glowplug.gateway.traffic import ModelTraffic

_KEPT_FIRSTS = 100
_BREATH = 0.01  # s between lines, however much is urgent


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The first token of the request that woke a model at zero. Times in seconds since the epoch.

    sent: to the engine; replica_ready: when this gateway learned that it was.
    """

    model: str
    pod: str
    received: float
    sent: float
    first_token: float
    replica_ready: float

    def record(self) -> dict[str, Any]:
        """As the stream carries it."""
        return {
            "model": self.model,
            "pod": self.pod,
            "received": self.received,
            "sent": self.sent,
            "firstToken": self.first_token,
            "replicaReady": self.replica_ready,
        }


class _Listener:
    """What one connection has not been told yet."""

    def __init__(self) -> None:
        self.changed: set[str] = set()
        self.firsts: deque[FirstToken] = deque(maxlen=_KEPT_FIRSTS)
        self.urgent = asyncio.Event()


class DemandStream:
    """Turns changes into lines.

    gateway: its name; epoch: grows with every start, the totals count from there;
    period: s between lines.
    """

    def __init__(self, gateway: str, epoch: int, period: float = 1.0) -> None:
        self._gateway = gateway
        self._epoch = epoch
        self._period = period
        self._listeners: set[_Listener] = set()
        self._untold: deque[FirstToken] = deque(maxlen=_KEPT_FIRSTS)

    def change(self, key: str, urgent: bool) -> None:
        """A model's numbers changed; `urgent` ones are told at once."""
        for listener in self._listeners:
            listener.changed.add(key)
            if urgent:
                listener.urgent.set()

    def first_token(self, first: FirstToken) -> None:
        """Tell a first token once, to whoever listens now or else listens next."""
        if not self._listeners:
            self._untold.append(first)
        for listener in self._listeners:
            listener.firsts.append(first)
            listener.urgent.set()

    async def lines(self, fleet: Fleet) -> AsyncGenerator[bytes, None]:
        """One connection's lines, for ever."""
        listener = _Listener()
        listener.firsts, self._untold = self._untold, listener.firsts
        self._listeners.add(listener)
        seq = 0
        try:
            models = {traffic.key: entry(traffic) for traffic in fleet}
            while True:
                yield self._line(seq, models, listener.firsts)
                seq += 1
                await asyncio.sleep(_BREATH)
                await _set_within(listener.urgent, self._period - _BREATH)
                listener.urgent.clear()
                changed, listener.changed = listener.changed, set()
                models = {key: entry(fleet.traffic(key)) for key in sorted(changed)}
        finally:
            self._listeners.discard(listener)

    def _line(self, seq: int, models: dict[str, Any], firsts: deque[FirstToken]) -> bytes:
        line: dict[str, Any] = {
            "gateway": self._gateway,
            "epoch": self._epoch,
            "seq": seq,
            "models": models,
        }
        if firsts:
            line["firsts"] = [first.record() for first in firsts]
            firsts.clear()
        return orjson.dumps(line) + b"\n"


def entry(traffic: ModelTraffic) -> dict[str, Any]:
    """One model's numbers.

    `pods` lists each Pod that this gateway may still send to or has requests at; a Pod that is
    missing gets nothing from here any more.
    """
    pods: dict[str, int] = {}
    for engine in traffic.engines.values():
        if engine.in_flight or not engine.replica.draining:
            uid = engine.replica.pod_uid
            pods[uid] = pods.get(uid, 0) + engine.in_flight
    return {
        "held": traffic.held,
        "inflight": sum(pods.values()),
        "arrivals": traffic.totals.arrivals,
        "completions": traffic.totals.completions,
        "busySeconds": round(traffic.totals.busy_seconds, 6),
        "pods": pods,
    }


async def _set_within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
