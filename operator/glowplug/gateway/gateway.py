"""One gateway: its parts put together, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from glowplug.gateway.admin import admin_app, serve_admin
from glowplug.gateway.delivery import Delivery, Patience
from glowplug.gateway.demand import DemandStream
from glowplug.gateway.fleet import Fleet
from glowplug.gateway.metrics import Metrics
from glowplug.gateway.proxy import EnginePool, ProxyServer, WireLimits
from glowplug.gateway.readiness import Pace, Readiness
from glowplug.gateway.refusal import Refusal, reject
from glowplug.gateway.service import Service
from glowplug.gateway.tls import Certificate

logger = logging.getLogger(__name__)

_LAST_ARRIVALS = 30.0  # s at most for new connections to cease
_LAST_WORDS = 1.0  # s for held clients to be told, once the grace is over


@dataclass(frozen=True, slots=True)
class Settings:
    """How a gateway runs. Ports of 0 are picked by the kernel; grace, demand_period in s.

    certificate: clients speak TLS; None: plain HTTP.
    """

    name: str
    host: str | None = None
    http_port: int = 8080
    admin_port: int = 9090
    grace: float = 600.0
    demand_period: float = 1.0
    limits: WireLimits = field(default_factory=WireLimits)
    patience: Patience = field(default_factory=Patience)
    pace: Pace = field(default_factory=Pace)
    certificate: Certificate | None = None


class Gateway:
    """Everything but the cluster: whoever has a fleet to tell it of calls `fleet`'s methods.

    synced: whether the fleet is known, so that an unknown model is truly unknown.
    """

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._stopping = False
        self._admin: web.AppRunner | None = None
        self._following: asyncio.Task[None] | None = None
        self.synced: Callable[[], bool] = lambda: False
        self.http_port = settings.http_port
        self.admin_port = settings.admin_port
        clock = asyncio.get_running_loop().time
        self.demand = DemandStream(settings.name, int(wall() * 1000), settings.demand_period)
        self.readiness = Readiness(session, wall, settings.pace)
        self.pool = EnginePool(settings.limits)
        self.metrics = Metrics(lambda: self.fleet)
        self.fleet = Fleet(
            self.pool, self.readiness, clock, self.demand.change, self.metrics.forget
        )
        delivery = Delivery(
            pool=self.pool,
            doubt=self.readiness.doubt,
            metrics=self.metrics,
            demand=self.demand,
            clock=clock,
            wall=wall,
            patience=settings.patience,
        )
        service = Service(self.fleet, delivery, self.metrics)
        self.proxy = ProxyServer(service.handle, reject, settings.limits)

    @property
    def ready(self) -> bool:
        """Whether clients should be sent here."""
        return self.synced() and not self._stopping

    async def start(self) -> None:
        """Open the admin port. Clients are let in by `accept`."""
        app = admin_app(
            fleet=self.fleet, demand=self.demand, metrics=self.metrics, ready=lambda: self.ready
        )
        host = self._settings.host
        self._admin, self.admin_port = await serve_admin(app, host, self._settings.admin_port)
        logger.info("admin port open", extra={"port": self.admin_port})

    async def accept(self) -> None:
        """Open the port for clients."""
        certificate = self._settings.certificate
        if certificate is not None:
            self._following = asyncio.create_task(certificate.follow())
        context = certificate.context if certificate is not None else None
        host, port = self._settings.host, self._settings.http_port
        self.http_port = await self.proxy.start(host, port, context)
        tls = certificate is not None
        logger.info("accepting clients", extra={"port": self.http_port, "tls": tls})

    async def stop(self) -> None:
        """Send clients elsewhere, let requests end within the grace, then close everything.

        The demand stream goes on until the last request has ended.
        """
        self._stopping = True
        clock = asyncio.get_running_loop().time
        end = clock() + self._settings.grace
        logger.info("stopping", extra={"connections": len(self.proxy.connections)})
        await self.proxy.stop_accepting(min(_LAST_ARRIVALS, self._settings.grace / 2))
        if not await self.proxy.drain(max(0.0, end - clock())):
            logger.warning("the grace was too short for the last requests")
            for traffic in self.fleet:
                traffic.refuse_held(_stopping)
            await self.proxy.drain(_LAST_WORDS)
            self.proxy.abort()
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await self.readiness.close()
        self.pool.close()
        if self._admin is not None:
            await self._admin.cleanup()


def _stopping() -> Refusal:
    return Refusal(
        503,
        "This gateway is stopping. Send the request again: another one takes it.",
        code="gateway_stopping",
        retry_after=1.0,
    )
