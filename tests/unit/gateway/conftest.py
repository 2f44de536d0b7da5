"""Fixtures of the gateway's tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from glowplug.gateway.delivery import Patience
from glowplug.gateway.gateway import Gateway, Settings
from glowplug.gateway.proxy import WireLimits
from glowplug.gateway.readiness import Pace

from .bench import HOST, Bench


@pytest.fixture
def settings() -> Settings:
    return Settings(
        name="gw-0",
        host=HOST,
        http_port=0,
        admin_port=0,
        grace=120.0,
        demand_period=0.1,
        limits=WireLimits(body_bytes=1_000_000, linger=0.5, farewell=0.3),
        patience=Patience(comments_after=0.1, comments_period=0.05),
        pace=Pace(health=0.01, health_ready=0.05, retry=0.01, retry_longest=0.02, long_poll=0.5),
    )


@pytest.fixture
async def bench(settings: Settings) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        gateway = Gateway(replace(settings, grace=0.0), session)
        gateway.synced = lambda: True
        await gateway.start()
        await gateway.accept()
        stack.push_async_callback(gateway.stop)
        yield Bench(gateway, session, stack)
