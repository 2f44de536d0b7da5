"""PrometheusSignals against an HTTP server that answers, fails and hangs on request."""

import asyncio
import time
from collections import Counter

import pytest
from aiohttp import web

from glowplug.api import dialect
from glowplug.observe import PrometheusSignals
from glowplug.observe.engines import query

from .test_engines import sample


class FakePrometheus:
    """The instant query API; `answers` by PromQL, anything else is an empty vector."""

    def __init__(self) -> None:
        self.answers: dict[str, list] = {}
        self.asked: Counter[str] = Counter()
        self.status = 200
        self.hang = False

    async def handle(self, request: web.Request) -> web.Response:
        promql = request.query["query"]
        self.asked[promql] += 1
        if self.hang:
            await asyncio.sleep(60)
        result = self.answers.get(promql, [])
        body = {"status": "success", "data": {"resultType": "vector", "result": result}}
        return web.json_response(body, status=self.status)


@pytest.fixture
async def prometheus(serve):
    fake = FakePrometheus()
    server = await serve("/api/v1/query", fake.handle)
    fake.url = server.url
    return fake


def answer(fake: FakePrometheus, **values: list[dict]) -> None:
    vllm = dialect("vllm")
    fake.answers = {
        query("waiting", vllm.waiting): values.get("waiting", []),
        query("running", vllm.running): values.get("running", []),
        query("kv_usage", vllm.kv_usage[0]): values.get("kv", []),
        query("kv_usage", vllm.kv_usage[1]): values.get("old_kv", []),
        query("age", vllm.waiting): values.get("age", []),
    }


async def test_one_query_for_each_signal_of_all_models_and_only_dialects_in_use(prometheus):
    answer(
        prometheus,
        waiting=[sample("2"), sample("0", model="n", pod="n-0")],
        running=[sample("3"), sample("1", model="n", pod="n-0")],
        kv=[sample("0.5")],
        old_kv=[sample("0.9"), sample("0.7", model="n", pod="n-0")],
        age=[sample("1"), sample("1", model="n", pod="n-0")],
    )
    signals = PrometheusSignals(prometheus.url, lambda: {"vllm"})
    await signals.poll()
    assert signals.health.ok
    assert set(prometheus.asked) == set(prometheus.answers)
    assert set(prometheus.asked.values()) == {1}
    m = signals.signals("ns/m", time.time())
    n = signals.signals("ns/n", time.time())
    assert (m.waiting, m.running, m.kv_usage) == (2.0, 3.0, 0.5)
    assert (n.waiting, n.running, n.kv_usage) == (0.0, 1.0, 0.7), "an older vLLM's name"


async def test_it_tells_whose_numbers_changed_and_nothing_of_the_others(prometheus):
    changed: list[str] = []
    signals = PrometheusSignals(prometheus.url, lambda: {"vllm"}, on_change=changed.append)

    async def poll(running: str, age: str) -> list[str]:
        changed.clear()
        m, n = sample(running), sample("1", model="n", pod="n-0")
        ages = [sample(age), sample(age, model="n", pod="n-0")]
        answer(prometheus, waiting=[sample("0")], running=[m, n], age=ages)
        await signals.poll()
        return sorted(changed)

    assert await poll("3", age="1") == ["ns/m", "ns/n"]
    assert await poll("3", age="2") == []
    assert await poll("8", age="1") == ["ns/m"]


@pytest.mark.parametrize("fault", ["status", "hang", "gone"])
async def test_failure_is_said_and_the_last_answer_stays_until_it_is_too_old(prometheus, fault):
    answer(prometheus, waiting=[sample("2")], running=[sample("3")], age=[sample("1")])
    url = prometheus.url
    timeout = 3.0 if fault == "hang" else 60.0
    signals = PrometheusSignals(url, lambda: {"vllm"}, timeout=timeout)
    await signals.poll()
    now = time.time()
    if fault == "gone":
        signals._connection.url = "http://127.0.0.1:1"
    prometheus.status = 503 if fault == "status" else 200
    prometheus.hang = fault == "hang"
    await signals.poll()
    assert not signals.health.ok
    assert "--prometheus-url" in signals.health.why
    assert signals.signals("ns/m", now).waiting == 2.0
    assert signals.signals("ns/m", now + 15.0) is None


async def test_a_prometheus_that_keeps_failing_is_asked_less_often(prometheus):
    prometheus.status = 500
    signals = PrometheusSignals(prometheus.url, lambda: {"vllm"}, interval=2.0)
    pauses = []
    for _ in range(9):
        await signals.poll()
        pauses.append(signals._pause())
    assert pauses == [2.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]
    prometheus.status = 200
    await signals.poll()
    assert signals.health.ok
    assert signals._pause() == 2.0
