"""1,000 ModelDeployments and 10,000 Pods: start to the first full pass, spec change to write, RSS.

A first operator creates the Pods and is ended; the one that is measured finds everything there.
API server and operator are real, kubelets are played by kwok. `--quick` takes a third.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from contextlib import AsyncExitStack

import aiohttp
from report import Report
from simulated import NAMESPACE, OPERATOR, Arrivals, Program, Site, measure, site, until

from glowplug.kube import MODELDEPLOYMENTS

OURS = "glowplug"
EACH = 10
_AT_ONCE = 8
_PASSES = re.compile(r'^glowplug_reconcile_seconds_count\{kind="ModelDeployment"\} (\S+)', re.M)


async def populate(made: Site, models: int, nodes: int) -> float:
    """Create the models and have an operator create their Pods; returns the seconds it took."""
    numbers = iter(range(models))

    async def create() -> None:
        for n in numbers:
            scaling = {"minReplicas": EACH, "maxReplicas": 2 * EACH}
            # Named here, because the scheduler would take most of the time and is not measured.
            template = {"spec": {"nodeName": f"node-{n % nodes}"}}
            await made.create_model(f"model-{n}", scaling=scaling, template=template)

    operator, _ = await made.start_operator()
    started = time.monotonic()
    await asyncio.gather(*(create() for _ in range(_AT_ONCE)))
    async with asyncio.timeout(900):
        while not await all_serve(made, models):
            if operator.child.returncode is not None:
                # As kubelet would: its lease lapses where nothing of it runs for ten seconds.
                operator, _ = await made.start_operator()
            await asyncio.sleep(3)
    took = time.monotonic() - started
    await operator.stop()
    return took


async def all_serve(made: Site, models: int) -> bool:
    """Whether every model has all its replicas ready, by its own status."""
    found = await made.models()
    ready = [m for m in found if (m.get("status") or {}).get("readyReplicas") == EACH]
    return len(ready) == models


async def first_pass(made: Site, models: int, report: Report, case: str) -> tuple[Program, int]:
    """Start the operator; the pass is full when it has looked at as many objects as there are."""
    started = time.monotonic()
    operator, port = await made.start_operator()
    report.add(case, OURS, "start to caches filled", "s", time.monotonic() - started)

    async def full() -> bool:
        return await passes(port) >= models

    await until(full, 300, pause=0.1)
    report.add(case, OURS, "start to first full pass", "s", time.monotonic() - started)
    report.add(case, OURS, "CPU until then", "s", operator.cpu_s())
    return operator, port


async def passes(port: int) -> float:
    """How often the operator has looked at a ModelDeployment so far."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        found = _PASSES.search(await response.text())
        return float(found[1]) if found else 0.0


async def changes(made: Site, models: int, rounds: int, report: Report, case: str) -> None:
    """Ask for one more replica of a model, five times a second; its Pod is the write."""
    arrivals = Arrivals(made.client)
    watching = asyncio.create_task(arrivals.run())
    await arrivals.watching.wait()
    changed: dict[str, float] = {}
    for number in random.sample(range(models), rounds):
        name = f"model-{number}"
        changed[name] = time.monotonic()
        patch = {"spec": {"scaling": {"minReplicas": EACH + 1}}}
        await made.client.patch(MODELDEPLOYMENTS, name, patch, NAMESPACE)
        await asyncio.sleep(random.uniform(0.1, 0.3))
    await arrivals.until(list(changed), 1, 120)
    watching.cancel()
    took = [arrivals.seen[name][0] - since for name, since in changed.items()]
    for seconds in took:
        report.add(case, OURS, "spec change to Pod", "s", seconds)
    report.add(case, OURS, "spec change to Pod, p99", "s", statistics.quantiles(took, n=100)[98])


async def resting(made: Site, operator: Program, seconds: float, report: Report, case: str) -> None:
    """What it costs while nothing happens."""
    since, spent = time.time(), operator.cpu_s()
    await asyncio.sleep(seconds)
    now = time.time()
    found = made.requests(OPERATOR, since, now)
    report.add(case, OURS, "API requests at rest", "1/s", len(found) / (now - since))
    report.add(case, OURS, "CPU at rest", "cores", (operator.cpu_s() - spent) / (now - since))
    report.add(case, OURS, "RSS at rest", "MiB", operator.rss_mib())


async def run(quick: bool) -> Report:
    """Set everything up, measure, and take it down."""
    models = 300 if quick else 1000
    case = f"{models:,} models, {models * EACH:,} Pods"
    report = Report()
    async with AsyncExitStack() as stack:
        nodes = models * EACH // 800 + 1
        made = await stack.enter_async_context(site(nodes, gpus=1000))
        report.add(case, OURS, "created from nothing", "s", await populate(made, models, nodes))
        operator, _ = await first_pass(made, models, report, case)
        await asyncio.sleep(10)
        await changes(made, models, 50 if quick else 200, report, case)
        await asyncio.sleep(10)
        await resting(made, operator, 15 if quick else 60, report, case)
        report.add(case, OURS, "highest RSS", "MiB", operator.peak_mib())
    return report


def main() -> None:
    """Measure, print, and write."""
    measure(__doc__, run)


if __name__ == "__main__":
    main()
