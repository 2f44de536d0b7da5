"""kopf watches our three kinds; an event only updates what is known and puts a key on the queue."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from glowplug.control.objects import Kind, Objects
from glowplug.kube import ApiError, Client

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 300.0
_RELIST_SETTLES_S = 1.0


class Watcher:
    """Runs kopf for ever and sweeps after each of its listings, and now and then."""

    def __init__(self, objects: Objects, client: Client) -> None:
        self._objects = objects
        self._client = client
        self._relisted = asyncio.Event()

    async def watch(self) -> None:
        """Follow the API server until cancelled."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(_login)
        for kind in (self._objects.deployments, self._objects.snapshots, self._objects.pools):
            resource = kind.resource
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(
                self._handler(kind)
            )
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False  # events are ours to write, as sentences
        settings.scanning.disabled = True  # no right to read CRDs and namespaces is needed
        await kopf.operator(registry=registry, settings=settings, standalone=True, clusterwide=True)

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

    def _handler(self, kind: Kind[Any]) -> Callable[..., Awaitable[None]]:
        async def handle(event: kopf.RawEvent, **_: Any) -> None:
            body: Any = event["object"]
            if event["type"] == "DELETED":
                kind.remove(body)
                return
            if event["type"] is None:
                self._relisted.set()
            kind.put(body)

        return handle


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """In the cluster as the ServiceAccount, by the address in the environment; else kubeconfig."""
    found = kopf.login_with_service_account(**kwargs)
    if found is None:
        return kopf.login_with_kubeconfig(**kwargs)
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST"),
        os.environ.get("KUBERNETES_SERVICE_PORT"),
    )
    if host is None:
        return found
    address = f"[{host}]" if ":" in host else host
    return dataclasses.replace(found, server=f"https://{address}:{port or 443}")
