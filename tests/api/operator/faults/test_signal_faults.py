"""Prometheus absent, slow, empty, NaN, old; gateways silent: the count is held and it is said."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from .conftest import writes_within

VLLM = {"type": "vllm", "image": "engine:1"}
SCALING = {"minReplicas": 1, "maxReplicas": 8, "targetConcurrency": 2, "idleAfter": "1s"}


class Prometheus:
    """A real HTTP server that answers instant queries; `numbers` and `ages` by model."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.url = ""
        self.numbers: dict[str, str] = {}
        self.ages: dict[str, str] = {}
        self.pods: dict[str, list[str]] = {}
        self.pause = 0.0
        self.asked = 0

    async def query(self, request: web.Request) -> web.Response:
        self.asked += 1
        await asyncio.sleep(self.pause)
        asked = (await request.post()).get("query") or request.query["query"]
        values = self.ages if "timestamp(" in str(asked) else self.numbers
        result = [self._sample(m, pod, n) for m, n in values.items() for pod in self.pods[m]]
        data = {"resultType": "vector", "result": result}
        return web.json_response({"status": "success", "data": data})

    def _sample(self, model: str, pod: str, number: str) -> dict[str, Any]:
        labels = {"namespace": self._namespace, "glowplug_model": model, "pod": pod}
        return {"metric": labels, "value": [0, number]}


@pytest.fixture
async def prometheus(namespace) -> AsyncIterator[Prometheus]:
    made = Prometheus(namespace)
    app = web.Application()
    app.router.add_route("*", "/api/v1/query", made.query)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
def _impatient(monkeypatch) -> None:
    """20 s of staleness before it is worth a condition are too long for a test."""
    monkeypatch.setattr("glowplug.control.minds.STALE_PATIENCE_S", 1.0)


async def starting(kubelet, models, eventually, *names: str) -> dict[str, list[str]]:
    """Create models; the names of their Pods."""
    for name in names:
        await models.create(name, engine=VLLM, scaling=SCALING)
    for name in names:
        await eventually(lambda name=name: kubelet.pods(model=name))
    return {n: [p["metadata"]["name"] for p in await kubelet.pods(model=n)] for n in names}


async def has_asked(prometheus: Prometheus, times: int) -> bool:
    return prometheus.asked >= times


@pytest.mark.usefixtures("_impatient")
async def test_samples_missing_nan_and_old_are_the_trouble_of_their_own_models(
    lives, gateway, prometheus, kubelet, models, eventually, warned
):
    fate = await lives(prometheus_url=prometheus.url)
    names = ("fresh", "empty", "nan", "old", "negative")
    prometheus.pods = await starting(kubelet, models, eventually, *names)
    prometheus.numbers = {"fresh": "5", "nan": "NaN", "old": "0", "negative": "-3"}
    prometheus.ages = dict.fromkeys(("fresh", "nan", "negative"), "1") | {"old": "600"}
    asked = prometheus.asked
    await eventually(lambda: has_asked(prometheus, asked + 10))
    await kubelet.serve_all()
    await models.becomes("fresh", "MetricsAvailable", "True", "Fresh")
    for name, told in {
        "empty": "no fresh sample of empty-",
        "nan": "lack a usable number for running and waiting",
        "old": "no fresh sample of old-",
        "negative": "lack a usable number for running and waiting",
    }.items():
        found = await models.becomes(name, "MetricsAvailable", "False", "Unavailable")
        assert told in found["message"]
        assert told in await warned(name, "Unavailable")
        assert len(await kubelet.pods(model=name)) == 1, "the count is held"

    async def all_of_fresh():
        return len(await kubelet.pods(model="fresh")) == 5

    await eventually(all_of_fresh)  # 5 waiting and 5 running need 5 replicas
    await asyncio.sleep(1.0)
    assert await writes_within(fate, 3.0) == []

    gateway.say(f"{models.namespace}/nan", held=6, arrivals=6)

    async def raised():
        return len(await kubelet.pods(model="nan")) >= 3

    await eventually(raised)  # gateway demand still scales up


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("how", ["absent", "slow"])
async def test_a_prometheus_that_does_not_answer(
    lives, gateway, prometheus, kubelet, models, eventually, warned, how
):
    prometheus.pause = 5.0
    url = prometheus.url if how == "slow" else "http://127.0.0.1:9"
    fate = await lives(prometheus_url=url)
    await starting(kubelet, models, eventually, "m")
    await kubelet.serve_all()
    await models.create("custom", replicas=1)
    told = await models.becomes("m", "MetricsAvailable", "False", "Unavailable")
    assert "held" in told["message"]
    await warned("m", "Unavailable")
    await models.becomes("custom", "MetricsAvailable", "Unknown", "NotObserved")
    gateway.say(f"{models.namespace}/m", held=6, arrivals=6)

    async def raised():
        return len(await kubelet.pods(model="m")) >= 3

    await eventually(raised)
    await asyncio.sleep(1.0)
    asked = prometheus.asked
    assert await writes_within(fate, 3.0) == []
    assert prometheus.asked - asked <= 3, "it is asked less and less often"


@pytest.mark.usefixtures("_impatient")
async def test_a_silent_gateway_lowers_nothing(
    lives, gateway, kubelet, models, eventually, warned, monkeypatch
):
    fate = await lives()
    await models.create("m", scaling=SCALING | {"minReplicas": 0})
    await models.create("pinned", replicas=1)
    await gateway.connected.wait()
    gateway.say(f"{models.namespace}/m", held=5, arrivals=5)

    async def three():
        return len(await kubelet.pods(model="m")) == 3

    await eventually(three)
    await kubelet.serve_all()
    gateway.say(f"{models.namespace}/m", held=0, inflight=5)
    gateway.silent = True
    told = await models.becomes("m", "MetricsAvailable", "False", "Unavailable")
    assert "a gateway is silent" in told["message"]
    await warned("m", "Unavailable")
    await asyncio.sleep(3.0)
    assert await three(), "nothing is taken away on a guess"
    assert await writes_within(fate, 2.0) == []

    gateway.silent = False
    gateway.say(f"{models.namespace}/m", inflight=0, completions=5, pods={})

    async def none():
        return not await kubelet.pods(model="m")

    await eventually(none)
    assert len(await kubelet.pods(model="pinned")) == 1
