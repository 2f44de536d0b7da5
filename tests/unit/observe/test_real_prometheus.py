"""PrometheusSignals against Debian's Prometheus that scrapes an engine on loopback."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from glowplug.observe import EngineSignals, PrometheusSignals

BINARY = shutil.which("prometheus")

pytestmark = pytest.mark.skipif(
    BINARY is None, reason="no `prometheus` on PATH: apt-get install prometheus"
)


class Engine:
    """An engine's /metrics in vLLM's words."""

    def __init__(self) -> None:
        self.waiting: object = 2

    async def handle(self, request: web.Request) -> web.Response:
        return web.Response(
            text=f"vllm:num_requests_waiting {self.waiting}\n"
            "vllm:num_requests_running 3\n"
            "vllm:gpu_cache_usage_perc 0.25\n"
        )


@pytest.fixture
async def scene(serve, free_port: Callable[[], int], tmp_path: Path) -> AsyncIterator[tuple]:
    engine = Engine()
    server = await serve("/metrics", engine.handle)
    labels = {"namespace": "ns", "glowplug_model": "m", "pod": "m-0"}
    target = {"targets": [f"127.0.0.1:{server.port}"], "labels": labels}
    job = {"job_name": "engines", "scrape_interval": "200ms", "scrape_timeout": "200ms"}
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"scrape_configs": [job | {"static_configs": [target]}]}))
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        BINARY,
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    yield engine, server, PrometheusSignals(f"http://{address}", lambda: {"vllm"})
    process.terminate()
    await process.wait()


async def until_signals(signals: PrometheusSignals, condition) -> EngineSignals | None:
    async with asyncio.timeout(120):
        while True:
            await signals.poll()
            found = signals.signals("ns/m", time.time())
            if signals.health.ok and condition(found):
                return found
            await asyncio.sleep(0.1)


async def test_from_scrape_to_signal_and_back_to_nothing(scene):
    engine, server, signals = scene
    found = await until_signals(signals, lambda found: found is not None)
    assert (found.waiting, found.running, found.kv_usage) == (2.0, 3.0, 0.25)
    assert found.pods == {"m-0"}
    assert 0 <= time.time() - found.at < 60

    engine.waiting = "NaN"
    found = await until_signals(signals, lambda found: found is not None and found.lacking)
    assert found.lacking == {"waiting"}
    assert found.running == 3.0

    await server.stop()
    await until_signals(signals, lambda found: found is None)
