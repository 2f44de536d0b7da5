"""Leadership by a Lease object: at most one holder writes, even one that was suspended.

A holder trusts its lease for `renew_deadline` seconds after it sent its last successful renewal; a
contender takes it only after it has watched it unchanged for `duration` seconds. Both count on
their own monotonic clock, so clocks of different machines are never compared.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from glowplug.kube.client import Client
from glowplug.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from glowplug.kube.resources import LEASES
from glowplug.kube.transport import Json

logger = logging.getLogger(__name__)


class LeaseLost(Exception):  # noqa: N818
    """Somebody else holds the lease, or it could not be renewed in time: stop writing, exit."""


class Lease:
    """One contender for a Lease; `identity` must be this process's alone.

    owner: an ownerReference to what this process lives in, its Pod: when the last holder is gone,
    the garbage collector takes the Lease along, and uninstalling leaves nothing.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        *,
        owner: Json | None = None,
        duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not retry < renew_deadline < duration:
            raise ValueError("a lease needs retry < renew_deadline < duration")
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._owners = [owner] if owner is not None else None
        self._duration = duration
        self._renew_deadline = renew_deadline
        self._retry = retry
        self._clock = clock
        self._wall = wall
        self._renewed: float | None = None  # clock when the last successful renewal was sent
        self._version = ""
        self._seen: tuple[str, float] | None = None  # (resourceVersion, clock when first seen)

    def held(self, now: float | None = None) -> bool:
        """Whether the lease is surely ours at `now` (on the lease's clock; None: this moment)."""
        if self._renewed is None:
            return False
        return (self._clock() if now is None else now) - self._renewed < self._renew_deadline

    async def acquire(self) -> None:
        """Wait until the lease is ours; errors of the API server are waited out."""
        while True:
            try:
                if await self._try_acquire():
                    logger.info("lease %s/%s is ours", self._namespace, self._name)
                    return
            except (Conflict, AlreadyExists):
                pass  # another contender was quicker
            except (ApiError, TimeoutError) as error:
                logger.warning("lease %s/%s: %s", self._namespace, self._name, error)
            await asyncio.sleep(self._retry * random.uniform(0.8, 1.2))

    async def hold(self) -> None:
        """Renew until that fails; always ends by raising `LeaseLost` (or by cancellation)."""
        while self.held():
            await asyncio.sleep(self._retry)
            await self._renew()
        self._renewed = None
        raise LeaseLost(
            f"lease {self._namespace}/{self._name} was not renewed for {self._renew_deadline:g} s"
        )

    async def release(self) -> None:
        """Hand the lease over at once, if it is ours; never raises."""
        if not self.held():
            return
        self._renewed = None
        try:
            async with asyncio.timeout(self._retry):
                await self._write({"holderIdentity": "", "leaseDurationSeconds": 1})
        except (ApiError, TimeoutError) as error:
            logger.warning(
                "lease %s/%s could not be released, it runs out in %g s: %s",
                self._namespace,
                self._name,
                self._duration,
                error,
            )

    async def _try_acquire(self) -> bool:
        sent = self._clock()
        async with asyncio.timeout(self._renew_deadline):
            try:
                lease = await self._client.get(LEASES, self._name, self._namespace)
            except NotFound:
                return self._won(await self._create(), sent)
            if not self._is_free(lease):
                return False
            self._version = lease["metadata"]["resourceVersion"]
            transitions = int((lease.get("spec") or {}).get("leaseTransitions") or 0)
            sent = self._clock()
            return self._won(await self._take(self._claim(transitions + 1)), sent)

    def _is_free(self, lease: Json) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity")
        if not holder or holder == self._identity:
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._clock())
        unchanged = self._clock() - self._seen[1]
        return unchanged > float(spec.get("leaseDurationSeconds") or self._duration)

    async def _renew(self) -> None:
        sent = self._clock()
        if self._renewed is None or sent - self._renewed >= self._renew_deadline:
            return
        try:
            async with asyncio.timeout(self._renewed + self._renew_deadline - sent):
                await self._renew_or_settle(sent)
        except (ApiError, TimeoutError) as error:
            logger.warning("lease %s/%s: %s", self._namespace, self._name, error or "timed out")

    async def _renew_or_settle(self, sent: float) -> None:
        try:
            self._won(await self._write({"renewTime": self._stamp()}), sent)
            return
        except (Conflict, NotFound):
            pass  # our own renewal whose answer was lost, or a new holder: look
        try:
            lease = await self._client.get(LEASES, self._name, self._namespace)
        except NotFound:
            lease = {}
        holder = (lease.get("spec") or {}).get("holderIdentity")
        if holder != self._identity:
            self._renewed = None
            raise LeaseLost(
                f"lease {self._namespace}/{self._name} is now held by {holder or 'nobody'}"
            )
        self._version = lease["metadata"]["resourceVersion"]

    async def _create(self) -> Json:
        metadata: Json = {"name": self._name, "namespace": self._namespace}
        if self._owners is not None:
            metadata["ownerReferences"] = self._owners
        return await self._client.create(
            LEASES,
            {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": metadata,
                "spec": self._claim(0),
            },
        )

    async def _take(self, spec: Json) -> Json:
        # A list in a merge patch replaces: what the last holder lived in owns it no more.
        return await self._write(spec, {"ownerReferences": self._owners})

    async def _write(self, spec: Json, metadata: Json | None = None) -> Json:
        # The resourceVersion makes it compare-and-swap: two contenders cannot both succeed.
        body = {"metadata": {**(metadata or {}), "resourceVersion": self._version}, "spec": spec}
        return await self._client.patch(
            LEASES, self._name, body, self._namespace, timeout=self._retry + 1
        )

    def _claim(self, transitions: int) -> Json:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._duration),
            "acquireTime": self._stamp(),
            "renewTime": self._stamp(),
            "leaseTransitions": transitions,
        }

    def _won(self, lease: Json, sent: float) -> bool:
        self._version = lease["metadata"]["resourceVersion"]
        self._renewed = sent
        return True

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
