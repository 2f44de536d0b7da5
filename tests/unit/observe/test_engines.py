"""Queries by dialect, and what answers turn into."""

import pytest

from glowplug.api import Dialect, dialect, dialects
from glowplug.observe.engines import Scrape, query, read, series_of, signals_of

VLLM = Dialect(waiting="w", running="r", kv_usage=("kv", "old_kv"))


def sample(value: str, pod: str = "m-0", model: str = "m", namespace: str = "ns") -> dict:
    labels = {"namespace": namespace, "glowplug_model": model, "pod": pod}
    return {"metric": labels, "value": [0, value]}


def scrape(at: float = 100.0, **signals: dict[str, float | None]) -> Scrape:
    values = {s: {("ns/m", pod): v for pod, v in pods.items()} for s, pods in signals.items()}
    return Scrape(at, {"vllm": values})


@pytest.mark.parametrize("name", dialects())
def test_every_alternative_of_every_dialect_is_a_query_of_its_own(name):
    for signal, alternatives in series_of(dialect(name)).items():
        for series in alternatives:
            assert " or " not in query(signal, series)
            assert f"({series})" in query(signal, series)


def test_queries_aggregate_by_pod():
    assert query("waiting", "w") == "sum by (namespace, glowplug_model, pod) (w)"
    assert query("kv_usage", "kv") == "max by (namespace, glowplug_model, pod) (kv)"
    assert query("age", 'w{a="b"}') == (
        'max by (namespace, glowplug_model, pod) (time() - timestamp(w{a="b"}))'
    )


@pytest.mark.parametrize("bad", ["NaN", "+Inf", "-Inf", "-1"])
def test_numbers_that_are_none_are_known_as_such(bad):
    found = read([sample("3"), sample(bad, pod="m-1")])
    assert found == {("ns/m", "m-0"): 3.0, ("ns/m", "m-1"): None}


def test_series_of_others_are_passed_over():
    assert read([{"metric": {"pod": "x"}, "value": [0, "1"]}, sample("1", model="")]) == {}


def test_signals_are_summed_over_the_fresh_pods_and_cache_usage_is_their_mean():
    found = signals_of(
        scrape(
            waiting={"a": 1.0, "b": 2.0, "old": 50.0},
            running={"a": 4.0, "b": 4.0, "old": 50.0},
            kv_usage={"a": 0.5, "b": 0.7, "old": 1.0},
            age={"a": 1.0, "b": 5.0, "old": 15.1},
        ),
        "ns/m",
        now=100.0,
        budget=15.0,
    )
    assert (found.waiting, found.running, found.kv_usage) == (3.0, 8.0, pytest.approx(0.6))
    assert (found.pods, found.at, found.lacking) == (frozenset("ab"), 95.0, frozenset())


def test_a_poll_that_is_not_repeated_grows_old():
    one = scrape(waiting={"a": 1.0}, age={"a": 5.0})
    assert signals_of(one, "ns/m", now=110.0, budget=15.0) is not None
    assert signals_of(one, "ns/m", now=110.1, budget=15.0) is None
    assert signals_of(one, "ns/other", now=100.0, budget=15.0) is None


def test_a_hole_in_a_signal_takes_it_from_the_whole_model():
    found = signals_of(
        scrape(
            waiting={"a": 1.0, "b": None}, running={"a": 1.0, "b": 1.0}, age={"a": 1.0, "b": 1.0}
        ),
        "ns/m",
        now=100.0,
        budget=15.0,
    )
    assert (found.waiting, found.running) == (None, 2.0)
    assert found.lacking == {"waiting"}
