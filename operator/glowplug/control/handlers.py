"""kopf watches our three kinds; an event only updates what is known and puts a key on the queue.

kopf has a thread and an event loop of its own: it takes over signals, and when it ends it cancels
every task of the loop that it runs in.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from glowplug.control.objects import Kind, Objects
from glowplug.kube import ApiError, Client

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 300.0
_RELIST_SETTLES_S = 1.0


class Watcher:
    """Runs kopf for ever, and sweeps after each of its listings and now and then."""

    def __init__(self, objects: Objects, client: Client) -> None:
        self._objects = objects
        self._client = client
        self._relisted = asyncio.Event()

    async def watch(self) -> None:
        """Follow the API server until cancelled; raises when kopf ends by itself."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()
        stop = threading.Event()

        def run() -> None:
            why = "it returned"
            try:
                asyncio.run(self._operator(loop, stop))
            except BaseException as error:
                why = repr(error)
            if not stop.is_set():
                loop.call_soon_threadsafe(ended.set_result, why)

        threading.Thread(target=run, name="kopf", daemon=True).start()
        try:
            raise RuntimeError(f"kopf ended: {await ended}")
        finally:
            stop.set()

    async def _operator(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(_login)
        for kind in (self._objects.deployments, self._objects.snapshots, self._objects.pools):
            resource = kind.resource
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(
                self._handler(kind, loop)
            )
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False  # events are ours to write, as sentences
        settings.scanning.disabled = True  # no right to read CRDs and namespaces is needed
        # Only peering uses the identity, but kopf asks for this user's name to make one.
        identity: Any = "glowplug"
        await kopf.operator(
            registry=registry,
            settings=settings,
            identity=identity,
            standalone=True,
            clusterwide=True,
            stop_flag=stop,
        )

    def _handler(
        self, kind: Kind[Any], loop: asyncio.AbstractEventLoop
    ) -> Callable[..., Awaitable[None]]:
        async def handle(event: kopf.RawEvent, **_: Any) -> None:
            loop.call_soon_threadsafe(self._take, kind, event["type"], event["object"])

        return handle

    def _take(self, kind: Kind[Any], what: str | None, body: Any) -> None:
        if what == "DELETED":
            kind.remove(body)
            return
        if what is None:
            self._relisted.set()
        kind.put(body)

    async def sweep(self) -> None:
        """Find deletions that no event told of, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(SWEEP_EVERY_S):
                    await self._relisted.wait()
                await asyncio.sleep(_RELIST_SETTLES_S)
            except TimeoutError:
                pass
            self._relisted.clear()
            try:
                await self._objects.sweep(self._client)
            except ApiError as error:
                log.warning("sweep failed: %s", error)


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """In the cluster as the ServiceAccount, by the address in the environment; else kubeconfig."""
    found = kopf.login_with_service_account(**kwargs)
    if found is None:
        return kopf.login_with_kubeconfig(**kwargs)
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if host is None:
        return found
    address = f"[{host}]" if ":" in host else host
    port = os.environ.get("KUBERNETES_SERVICE_PORT") or "443"
    return dataclasses.replace(found, server=f"https://{address}:{port}")
