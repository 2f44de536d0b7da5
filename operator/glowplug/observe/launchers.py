"""The state of every replica, asked of its launcher, or of its engine's health path without one.

A long poll per replica that starts, so that news of it travels at once. One that both its launcher
and kubelet call ready is left alone until its Pod changes: thousands that serve cost nothing.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable

import aiohttp
import orjson

from glowplug.api import Replica, replicas_of
from glowplug.kube import PodRecord, WatchCache
from glowplug.observe.replicas import Key
from glowplug.observe.state import ReplicaState, parse_state

logger = logging.getLogger(__name__)

_LONG_POLL = 30.0
_ANSWER = 2.0
_STARTING_POLL = 0.1
_SETTLED_POLL = 2.0
_LARGEST_STATE = 2**20


class ReplicaStates:
    """Follows the Pods of a cache and keeps the last state of each of their replicas.

    on_change(replica): its state changed in a way that decisions may depend on.
    """

    def __init__(
        self,
        pods: WatchCache[PodRecord],
        session: aiohttp.ClientSession,
        *,
        on_change: Callable[[Replica], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pods = pods
        self._session = session
        self._on_change = on_change
        self._clock = clock
        self._states: dict[Key, ReplicaState] = {}
        self._followed: dict[str, dict[Key, Replica]] = {}  # by Pod uid
        self._polls: dict[Key, asyncio.Task[None]] = {}
        self._dirty: dict[str, PodRecord | None] = {}
        self._wake = asyncio.Event()

    def get(self, key: Key) -> ReplicaState | None:
        """The replica's last known state, None before the first."""
        return self._states.get(key)

    async def run(self) -> None:
        """Start and end polls as Pods come and go, until cancelled."""
        self._pods.subscribe(self._note)
        for known in self._pods.all():
            self._note(None, known)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                dirty, self._dirty = self._dirty, {}
                for uid, pod in dirty.items():
                    self._follow(uid, pod)
        finally:
            for task in self._polls.values():
                task.cancel()

    def _note(self, old: PodRecord | None, new: PodRecord | None) -> None:
        for record in (old, new):
            if record is not None:
                self._dirty[record.uid] = new
        self._wake.set()

    def _follow(self, uid: str, pod: PodRecord | None) -> None:
        wanted = {r.key: r for r in replicas_of(pod) if r.ip} if pod is not None else {}
        for key, replica in self._followed.pop(uid, {}).items():
            if key not in wanted or wanted[key].ip != replica.ip:
                self._leave(key)
                self._states.pop(key, None)
        if pod is None or not wanted:
            return
        self._followed[uid] = wanted
        for key, replica in wanted.items():
            if self._is_settled(pod, replica):
                self._leave(key)
            elif key not in self._polls:
                self._polls[key] = asyncio.create_task(self._poll(replica))

    def _is_settled(self, pod: PodRecord, replica: Replica) -> bool:
        if not pod.ready or replica.draining:
            return False
        known = self._states.get(replica.key)
        if known is None:
            return replica.key not in self._polls  # it served before this process came
        return known.phase == "ready" and known.reachable

    def _leave(self, key: Key) -> None:
        poll = self._polls.pop(key, None)
        if poll is not None:
            poll.cancel()

    async def _poll(self, replica: Replica) -> None:
        poll = self._poll_launcher if replica.launcher_port else self._poll_health
        while True:
            try:
                await poll(replica)
            except Exception:
                # What answers is a tenant's container; it must not end the watch over others.
                logger.exception("replica %s: asking again", replica.pod, extra=_about(replica))
                await asyncio.sleep(_SETTLED_POLL)

    async def _poll_launcher(self, replica: Replica) -> None:
        url = f"http://{replica.authority(replica.launcher_port)}/state"
        seq = 0
        while True:
            try:
                state = await self._ask(url, seq)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                seq = 0  # whoever answers next may be another process
                self._lost(replica, error)
                await asyncio.sleep(self._patience(replica))
                continue
            if state.seq == seq and seq:
                await asyncio.sleep(0.05)  # an answer without news ends the long poll
            seq = state.seq
            self._learn(replica, state)

    async def _ask(self, url: str, seq: int) -> ReplicaState:
        query = {"after": str(seq), "timeout": f"{_LONG_POLL:g}"} if seq else {}
        patience = _LONG_POLL + _ANSWER if seq else _ANSWER
        timeout = aiohttp.ClientTimeout(total=patience, sock_connect=_ANSWER)
        async with self._session.get(url, params=query, timeout=timeout) as response:
            response.raise_for_status()
            body = orjson.loads(await _bounded(response))
        if not isinstance(body, dict):
            raise ValueError("the state is not an object")
        return parse_state(body, self._clock())

    async def _poll_health(self, replica: Replica) -> None:
        url = f"http://{replica.authority(replica.port)}{replica.health_path}"
        timeout = aiohttp.ClientTimeout(total=_ANSWER)
        while True:
            try:
                async with self._session.get(url, timeout=timeout) as response:
                    healthy = response.status < 400
            except (aiohttp.ClientError, OSError, ValueError):
                healthy = False
            self._learn(replica, self._from_health(replica, healthy))
            await asyncio.sleep(_SETTLED_POLL if healthy else self._patience(replica))

    def _from_health(self, replica: Replica, healthy: bool) -> ReplicaState:
        now = self._clock()
        known = self._states.get(replica.key)
        if healthy:
            ready_at = now if known is None or known.ready_at is None else known.ready_at
            return ReplicaState("ready", now, ready_at=ready_at)
        if known is None:
            return ReplicaState("starting", now, reachable=False)
        return dataclasses.replace(known, at=now, reachable=False)

    def _learn(self, replica: Replica, state: ReplicaState) -> None:
        known = self._states.get(replica.key)
        self._states[replica.key] = state
        # A restore's progress moves `seq` many times a second and is no news to decide by.
        if known is None or dataclasses.replace(known, at=state.at, seq=state.seq) != state:
            pod = self._pods.get(replica.namespace, replica.pod)
            if pod is not None and pod.uid == replica.pod_uid:
                self._note(None, pod)
            self._on_change(replica)

    def _lost(self, replica: Replica, error: Exception) -> None:
        known = self._states.get(replica.key)
        if known is not None and known.reachable:
            logger.info("replica %s: %s", replica.pod, error, extra=_about(replica))
            self._learn(replica, dataclasses.replace(known, reachable=False))

    def _patience(self, replica: Replica) -> float:
        """Seconds between attempts: eager while the replica is about to start."""
        pod = self._pods.get(replica.namespace, replica.pod)
        starting = pod is not None and not pod.ready and any(c.running for c in pod.containers)
        return _STARTING_POLL if starting else _SETTLED_POLL / 4


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    # The other side is a tenant's container: it may send anything.
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _LARGEST_STATE:
            raise ValueError(f"the state is larger than {_LARGEST_STATE} bytes")
    return body


def _about(replica: Replica) -> dict[str, str]:
    return {"object": f"ModelDeployment/{replica.namespace}/{replica.model}"}
