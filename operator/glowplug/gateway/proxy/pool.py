"""Connections to engines, kept by address and used again."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from glowplug.gateway.proxy.engine import EngineConnection, EngineGone, Sink
from glowplug.gateway.proxy.wire import Address, WireLimits


class EnginePool:
    """Connections by address: the most recently used idle one first."""

    def __init__(self, limits: WireLimits | None = None) -> None:
        self.limits = limits or WireLimits()
        self._idle: defaultdict[Address, list[EngineConnection]] = defaultdict(list)
        self._busy: defaultdict[Address, set[EngineConnection]] = defaultdict(set)
        self._sweep: asyncio.TimerHandle | None = None

    async def exchange(self, address: Address, request: bytes, sink: Sink) -> None:
        """One request and its answer. Raises EngineGone.

        A pooled connection that turns out to be dead is replaced by a new one first.
        """
        sent = False
        connection = self._take_idle(address)
        if connection is not None:
            try:
                await self._use(connection, request, sink)
                return
            except EngineGone:
                if connection.answered:
                    raise
                sent = True
        await self._use(await self._connect(address, sent), request, sink)

    def idle(self, address: Address) -> int:
        """How many connections are pooled for an address."""
        return len(self._idle.get(address, ()))

    def retire(self, address: Address) -> None:
        """Keep no connection to an address that gets nothing new; answers under way go on."""
        for connection in self._idle.pop(address, ()):
            connection.close()
        for connection in self._busy.get(address, ()):
            connection.reusable = False

    def abort(self, address: Address) -> None:
        """Reset all connections to an engine known to be gone."""
        self.retire(address)
        for connection in list(self._busy.get(address, ())):
            connection.abort()

    def close(self) -> None:
        """Reset everything."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for address in [*self._idle, *self._busy]:
            self.abort(address)

    def _take_idle(self, address: Address) -> EngineConnection | None:
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connect(self, address: Address, sent: bool) -> EngineConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: EngineConnection(address, self.limits, self._forget), *address
                )
        except TimeoutError:
            raise EngineGone("it did not accept a connection in time", sent=sent) from None
        except OSError as error:
            raise EngineGone(f"it could not be reached: {error.strerror}", sent=sent) from None
        return connection

    async def _use(self, connection: EngineConnection, request: bytes, sink: Sink) -> None:
        busy = self._busy[connection.address]
        busy.add(connection)
        try:
            await connection.exchange(request, sink)
        finally:
            busy.discard(connection)
            if not busy:
                self._busy.pop(connection.address, None)
        if connection.reusable:
            self._keep(connection)
        else:
            connection.close()

    def _keep(self, connection: EngineConnection) -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle[connection.address].append(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(self.limits.engine_idle / 4, self._close_stale)

    def _forget(self, connection: EngineConnection) -> None:
        idle = self._idle.get(connection.address)
        if idle and connection in idle:
            idle.remove(connection)

    def _close_stale(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self.limits.engine_idle
        for address, idle in list(self._idle.items()):
            for connection in [c for c in idle if c.idle_since <= oldest]:
                idle.remove(connection)
                connection.close()
            if not idle:
                del self._idle[address]
        again = bool(self._idle)
        self._sweep = (
            loop.call_later(self.limits.engine_idle / 4, self._close_stale) if again else None
        )
