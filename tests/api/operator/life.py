"""One life of the operator inside the test, which can end before or after any of its writes.

Ending is abrupt: from that moment on no request leaves and no answer comes back, then every task is
dropped. The next life starts with empty memory and caches, as a new process would.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp

from glowplug.act.weights import Store
from glowplug.control.model import Settings
from glowplug.control.operator import LEASE, Operator
from glowplug.kube import LEASES, ApiError, Client
from glowplug.kube.transport import Transport

SETTINGS = Settings(0.2, "snapshotter:1", Store("s3://snapshots/x", None, None))


class Fate:
    """Numbers writes once it is armed; says at which one, and on which side of it, life ends."""

    def __init__(self, end_at: int | None = None, *, after: bool = False) -> None:
        self.end_at = end_at
        self.after = after
        self.writes: list[str] = []
        self.ended = asyncio.Event()
        self._armed = False

    def arm(self) -> None:
        self._armed = True

    def number(self, method: str, path: str) -> int:
        """The number of this write, from 1; 0 before the fate is armed."""
        if self._armed:
            self.writes.append(f"{method} {path}")
        return len(self.writes)

    async def meet(self, number: int, *, after: bool) -> None:
        """End here if this is the moment; nothing that waits here ever goes on."""
        if number and number == self.end_at and after == self.after:
            self.ended.set()
        if self.ended.is_set():
            await asyncio.Event().wait()


class MortalTransport(Transport):
    """The product's transport, with a fate. The Lease has tests of its own and is not counted."""

    fate: Fate

    async def request(self, method: str, path: str, **rest: Any) -> Any:
        await self.fate.meet(0, after=False)
        if method == "GET" or "/leases/" in path or path.endswith("/leases"):
            answer = await super().request(method, path, **rest)
            await self.fate.meet(0, after=True)
            return answer
        number = self.fate.number(method, path)
        await self.fate.meet(number, after=False)
        try:
            answer = await super().request(method, path, **rest)
        except ApiError:
            await self.fate.meet(number, after=True)
            raise
        await self.fate.meet(number, after=True)
        return answer


class Life:
    """The tasks of one operator; `async with` starts and drops them."""

    def __init__(
        self,
        kubeconfig: Path,
        namespace: str,
        fate: Fate,
        *,
        settings: Settings = SETTINGS,
        prometheus_url: str | None = None,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._settings = settings
        self._prometheus_url = prometheus_url
        self._tasks: list[asyncio.Task[None]] = []
        self._resources = contextlib.AsyncExitStack()
        self.fate = fate

    async def __aenter__(self) -> "Life":
        transport = await MortalTransport.connect(str(self._kubeconfig))
        transport.fate = self.fate
        client = Client(transport)
        self._resources.push_async_callback(client.close)
        session = await self._resources.enter_async_context(aiohttp.ClientSession())
        operator = Operator(
            client,
            session,
            self._settings,
            namespace=self._namespace,
            identity="crash-test",
            launcher=b"a zipapp",
            prometheus_url=self._prometheus_url,
        )
        self._start(operator.background())
        await operator.warm()
        await operator.lease.acquire()
        self._start(operator.leading())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.fate.ended.set()
        for task in self._tasks:
            task.cancel()
        done, stuck = await asyncio.wait(self._tasks, timeout=10.0)
        await self._resources.aclose()
        assert not stuck, f"tasks that take no cancellation: {stuck!r}"
        broken = [e for e in (t.exception() for t in done if not t.cancelled()) if e is not None]
        assert not broken, f"the operator ended by itself: {broken!r}"

    def _start(self, coroutines: dict[str, Any]) -> None:
        self._tasks += [asyncio.create_task(run, name=name) for name, run in coroutines.items()]


async def lease_runs_out(client: Client, namespace: str) -> None:
    """What 15 s without a renewal come to."""
    await client.delete(LEASES, LEASE, namespace)
