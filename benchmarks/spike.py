"""From more demand to Pods created: from zero and from one, for one model and for 200 at once.

The gateway cases start when a client sends its request to the real gateway, the Prometheus cases
when an engine's metric changes (a real Prometheus scrapes every second); both end when a watch
shows the Pods. Defaults of the operator throughout. The API server, scheduler and operator are
real, kubelets are played by kwok.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import yaml
from engines import Engines
from report import Report
from simulated import (
    OPERATOR,
    Arrivals,
    Program,
    Site,
    answers,
    expose_gateway,
    hold_request,
    measure,
    site,
    until,
)

from cluster.apiserver import free_ports

OURS = "glowplug"
FLEET = 200
ONE_EACH = {"scaling": {"targetConcurrency": 1, "maxReplicas": 1}}
# Building KEDA takes 11 minutes here, so these rows are quoted, not measured in this run.
ELSEWHERE = {
    "keda-default": "0 -> 1 24.2 s, 1 -> 32 56.5 s, 200 models at once 33.7 s; 15.9 requests/s and "
    "256 MiB with 200 idle, 42 and 272 with 200 active",
    "keda-tuned": "0 -> 1 3.1 s, 1 -> 32 4.5 s, 200 models at once 11.4 s; 14.3 requests/s and "
    "265 MiB with 200 idle, 146 and 281 with 200 active",
}


@dataclass(slots=True)
class Bench:
    """Everything that runs, and where the samples go."""

    site: Site
    operator: Program
    gateway: str
    prometheus: str
    engines: Engines
    arrivals: Arrivals
    session: aiohttp.ClientSession
    report: Report
    quick: bool

    async def ask(self, model: str, stack: AsyncExitStack) -> None:
        """Hold one request for as long as `stack` lasts."""
        task = asyncio.create_task(hold_request(self.gateway, model, self.session))
        stack.callback(task.cancel)

    async def parked(self, *models: str) -> None:
        """Wait until these models are at zero and known to be valid."""
        for model in models:
            await until(partial(self._is, model, "ScaledToZero"), 60)

    async def serving(self, model: str) -> None:
        """Wait until a model serves."""
        await until(partial(self._is, model, "Serving"), 60)

    async def _is(self, model: str, reason: str) -> bool:
        ready = await self.site.condition(model, "Ready")
        return bool(ready.get("reason") == reason)


async def from_zero(bench: Bench) -> None:
    """One request for a model at zero, n times with a model each."""
    rounds = 10 if bench.quick else 40
    names = [f"zero-{n}" for n in range(rounds)]
    for name in names:
        await bench.site.create_model(name, **ONE_EACH)
    await bench.parked(*names)
    for name in names:
        await asyncio.sleep(random.uniform(0.2, 0.5))  # not in step with any loop
        async with AsyncExitStack() as stack:
            sent = time.monotonic()
            await bench.ask(name, stack)
            await bench.arrivals.until([name], 1, 60)
            took = bench.arrivals.seen[name][0] - sent
            bench.report.add("0 -> 1, gateway", OURS, "request to Pod", "ms", took * 1e3)
    for name in names:
        await bench.site.delete_model(name)


async def at_once(bench: Bench, fleet: list[str]) -> None:
    """A request for each of 200 models at zero, all at once; they stay active."""
    async with AsyncExitStack() as stack:
        sent = time.monotonic()
        for name in fleet:
            await bench.ask(name, stack)
        await bench.arrivals.until(fleet, 1, 120)
        times = sorted(bench.arrivals.seen[name][0] - sent for name in fleet)
        case = f"{FLEET} models 0 -> 1, gateway"
        bench.report.add(case, OURS, "requests to first Pod", "s", times[0])
        bench.report.add(case, OURS, "requests to median Pod", "s", statistics.median(times))
        bench.report.add(case, OURS, "requests to last Pod", "s", times[-1])
        bench.engines.release.set()
        for name in fleet:
            await bench.serving(name)
    bench.engines.release.clear()


async def out_by_gateway(bench: Bench, wanted: int) -> None:
    """As many requests at once as replicas are wanted, to a model with one replica."""
    for turn in range(2 if bench.quick else 6):
        name = f"out-{wanted}-{turn}"
        await _one_serves(bench, name, wanted)
        await asyncio.sleep(random.uniform(2.0, 4.0))
        async with AsyncExitStack() as stack:
            sent = time.monotonic()
            for _ in range(wanted):
                await bench.ask(name, stack)
            await bench.arrivals.until([name], wanted, 60)
            _note_growth(bench, f"1 -> {wanted}, gateway", "requests", name, sent)
        await bench.site.delete_model(name)


async def out_by_prometheus(bench: Bench, wanted: int) -> None:
    """A metric that rises by itself; the clock also starts when Prometheus can tell of it."""
    for turn in range(2 if bench.quick else 6):
        name = f"metric-{wanted}-{turn}"
        await _one_serves(bench, name, wanted)
        await asyncio.sleep(random.uniform(2.0, 4.0))
        changed = time.monotonic()
        bench.engines.running[name] = float(wanted)
        await _value(bench, name, float(wanted))
        visible = time.monotonic()
        await bench.arrivals.until([name], wanted, 60)
        case = f"1 -> {wanted}, Prometheus"
        _note_growth(bench, case, "metric", name, changed)
        _note_growth(bench, case, "sample visible", name, visible)
        await bench.site.delete_model(name)


async def _one_serves(bench: Bench, name: str, wanted: int) -> None:
    bench.engines.running[name] = 1.0
    await bench.site.create_model(
        name, scaling={"targetConcurrency": 1, "minReplicas": 1, "maxReplicas": wanted}
    )
    await bench.serving(name)
    (pod,) = await bench.site.pods(name)
    bench.engines.model_of[pod["status"]["podIP"]] = name
    await _value(bench, name, 1.0)


async def _value(bench: Bench, model: str, value: float) -> None:
    """Wait until Prometheus tells this value."""
    query = {"query": f'max(vllm:num_requests_running{{glowplug_model="{model}"}})'}

    async def told() -> bool:
        async with bench.session.get(f"{bench.prometheus}/api/v1/query", params=query) as response:
            result = (await response.json())["data"]["result"]
            return bool(result) and float(result[0]["value"][1]) == value

    await until(told, 60, pause=0.01)


def _note_growth(bench: Bench, case: str, start: str, name: str, since: float) -> None:
    grown = bench.arrivals.seen[name][1:]
    bench.report.add(case, OURS, f"{start} to first Pod", "s", grown[0] - since)
    bench.report.add(case, OURS, f"{start} to last Pod", "s", grown[-1] - since)
    bench.report.add(case, OURS, "first to last Pod", "s", grown[-1] - grown[0])


async def resting(bench: Bench, case: str) -> None:
    """API requests, CPU and memory of the operator over a while."""
    seconds = 20 if bench.quick else 60
    since, spent = time.time(), bench.operator.cpu_s()
    await asyncio.sleep(seconds)
    until_, used = time.time(), bench.operator.cpu_s() - spent
    found = bench.site.requests(OPERATOR, since, until_)
    writes = [r for r in found if r["verb"] not in ("get", "list", "watch")]
    add = bench.report.add
    add(case, OURS, "API requests", "1/s", len(found) / (until_ - since))
    add(case, OURS, "of them writes", "1/s", len(writes) / (until_ - since))
    add(case, OURS, "CPU", "cores", used / (until_ - since))
    add(case, OURS, "RSS", "MiB", bench.operator.rss_mib())


async def active(bench: Bench, fleet: list[str]) -> None:
    """Every model has a replica; 40 requests a second come and go, each held half a second."""

    async def client() -> None:
        while True:
            await asyncio.sleep(random.expovariate(1.0))
            task = hold_request(bench.gateway, random.choice(fleet), bench.session)
            try:
                await asyncio.wait_for(task, 0.5)
            except TimeoutError:
                continue

    async with AsyncExitStack() as stack:
        for _ in range(60):
            stack.callback(asyncio.create_task(client()).cancel)
        await asyncio.sleep(15)
        await resting(bench, f"{FLEET} models active")


async def run(quick: bool) -> Report:
    """Set everything up, measure case by case, and take it down."""
    report = Report()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(site(nodes=4, gpus=200))
        engines = Engines()
        await engines.serve(stack)
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        await stack.enter_async_context(session)
        fleet = [f"model-{n}" for n in range(FLEET)]
        for name in fleet:
            await made.create_model(name, **ONE_EACH)
        http, admin, web = free_ports(3)
        gateway = await made.start(
            "glowplug-gateway", "--http-port", str(http), "--admin-port", str(admin)
        )
        await answers(f"http://127.0.0.1:{admin}/readyz", gateway)
        await expose_gateway(made, admin)
        prometheus = f"http://127.0.0.1:{web}"
        operator, port = await made.start_operator("--prometheus-url", prometheus)
        await start_prometheus(made, web, f"http://127.0.0.1:{port}/sd/engines")
        arrivals = Arrivals(made.client)
        watching = asyncio.create_task(arrivals.run())
        stack.callback(watching.cancel)
        bench = Bench(
            made,
            operator,
            f"http://127.0.0.1:{http}",
            prometheus,
            engines,
            arrivals,
            session,
            report,
            quick,
        )
        await bench.parked(*fleet)
        await asyncio.sleep(10)
        await resting(bench, f"{FLEET} models idle")
        await from_zero(bench)
        for wanted in (8, 32):
            await out_by_gateway(bench, wanted)
        for wanted in (8, 32):
            await out_by_prometheus(bench, wanted)
        await at_once(bench, fleet)
        await active(bench, fleet)
        report.add("all of the above", OURS, "highest RSS", "MiB", operator.peak_mib())
    for tool, figures in ELSEWHERE.items():
        told = f"not part of this run; measured apart with KEDA 2.21 on such a machine: {figures}"
        report.lacks("all of the above", tool, told)
    return report


async def start_prometheus(made: Site, port: int, discovery: str) -> None:
    """A Prometheus that finds the engines as the operator lists them."""
    home = made.server.directory / "prometheus"
    home.mkdir()
    found = {"url": discovery, "refresh_interval": "1s"}
    jobs = [{"job_name": "engines", "http_sd_configs": [found]}]
    body = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
    (home / "prometheus.yml").write_text(yaml.safe_dump(body))
    program = await made.start(
        Path("/usr/bin/prometheus"),
        f"--config.file={home}/prometheus.yml",
        f"--storage.tsdb.path={home}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    )
    await answers(f"http://127.0.0.1:{port}/-/ready", program)


def main() -> None:
    """Measure, print, and write."""
    measure(__doc__, run)


if __name__ == "__main__":
    main()
