"""The daemon: its parts put together, its two ports, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glowplug_snapshotter.cache.auth import Key
from glowplug_snapshotter.cache.discovery import Discovery, Listed, Sliced, join
from glowplug_snapshotter.cache.disk import Disk
from glowplug_snapshotter.cache.download import Means
from glowplug_snapshotter.cache.http import Server
from glowplug_snapshotter.cache.library import Library
from glowplug_snapshotter.cache.metrics import Counters, Gauges
from glowplug_snapshotter.cache.peering import Peering
from glowplug_snapshotter.cache.peers import Peers
from glowplug_snapshotter.cache.serving import Serving, explain
from glowplug_snapshotter.cache.shelf import Shelf
from glowplug_snapshotter.cache.slots import Slots
from glowplug_snapshotter.cache.throttle import Bucket
from glowplug_snapshotter.cache.upstream import Upstream
from glowplug_snapshotter.events import Emit, Event
from glowplug_snapshotter.sources import open_source

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command is given; bytes, and bytes per second."""

    store: str
    endpoint: str | None
    directory: Path
    budget: int
    host: str | None = None  # to listen on; None is every address, IPv6 ones too
    port: int = 9420
    peer_port: int = 9421
    advertise: str | None = None  # the own host, as peers see it
    peers: tuple[str, ...] = ()
    peers_file: Path | None = None
    peers_service: str | None = None  # namespace/name of a headless Service
    key_file: Path | None = None
    peer_bandwidth: int | None = None
    peer_transfers: int = 4
    slots: int = 6


class Daemon:
    """One node's cache; `start`, and `close` at the end."""

    def __init__(self, settings: Settings, discovery: Discovery) -> None:
        self.settings = settings
        self.counters = Counters()
        self._discovery = discovery
        self._key = Key.read(settings.key_file) if settings.key_file is not None else None
        self._disk = Disk(settings.directory)
        self._shelf = Shelf(settings.budget)
        self._slots = Slots(settings.slots)
        reader = open_source(settings.store, settings.endpoint)
        self._upstream = Upstream(reader, self._slots, self._from_store)

    async def start(self) -> None:
        """Take over the directory and listen."""
        settings, clock, wall = self.settings, time.monotonic, time.time
        found = await self._slots.run(self._disk.open)
        me = join(settings.advertise or settings.host or "127.0.0.1", settings.peer_port)
        known = self._discovery.addresses
        self._peers = Peers(me, self._key, known, clock=clock, wall=wall)
        means = Means(self._disk, self._upstream, self._peers, self._slots, self._from_peers)
        self._library = Library(means, self._shelf, self.counters, wall)
        self._library.restore(found)
        peering = Peering(
            self._library,
            self._peers,
            self._key,
            self.counters,
            self._gauges,
            bucket=Bucket(settings.peer_bandwidth, clock),
            most=settings.peer_transfers,
            wall=wall,
        )
        serving = Serving(self._library, self._upstream, self._slots, self.counters)
        self._servers = Server(serving.answer, explain), Server(peering.answer, explain)
        for server, port in zip(self._servers, (settings.port, settings.peer_port), strict=True):
            await server.start(settings.host, port)

    async def close(self) -> None:
        """Stop, and leave the directory in good order."""
        for server in self._servers:
            await server.close()
        self._upstream.close()
        await self._library.close()
        self._peers.close()
        self._slots.close()
        self._disk.close()

    def _from_store(self, count: int) -> None:
        self.counters.from_store_bytes += count

    def _from_peers(self, count: int) -> None:
        self.counters.from_peers_bytes += count

    def _gauges(self) -> Gauges:
        return Gauges(
            bytes=self._shelf.bytes,
            budget_bytes=self._shelf.budget,
            contents=len(self._shelf),
            downloads=self._library.downloads,
            peers=len(self._peers.known()),
            peers_shunned=self._peers.shunned,
        )


def run(settings: Settings, emit: Emit, env: Mapping[str, str]) -> Event:
    """Run until SIGTERM or SIGINT; return the last event."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    asyncio.run(_run(settings, emit, env))
    emit({"event": "result", "stopped": True})
    os._exit(0)  # a thread that waits for a slow store must not delay the end


async def _run(settings: Settings, emit: Emit, env: Mapping[str, str]) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    daemon = Daemon(settings, _discovery(settings, env))
    await daemon.start()
    emit({"event": "listening", "port": settings.port, "peerPort": settings.peer_port})
    await stopped.wait()
    await daemon.close()


def _discovery(settings: Settings, env: Mapping[str, str]) -> Discovery:
    if settings.peers_service is None:
        return Listed(settings.peers, settings.peers_file)
    namespace, _, name = settings.peers_service.partition("/")
    found = Sliced(namespace, name, env)
    found.start()
    return found
