"""The rules by which signals become one observation."""

import pytest

from glowplug.observe import Demand, EngineSignals, ReplicaState, Totals, census, signals

from .conftest import pod

NOW = 1_000_000.0


def engines(waiting=0.0, running=0.0, kv=None, pods=("m-0",), lacking=()) -> EngineSignals:
    return EngineSignals(waiting, running, kv, NOW, frozenset(pods), frozenset(lacking))


def ready(*names: str, **changes):
    state = ReplicaState("ready", at=NOW)
    return census("ns/m", [pod(name, **changes) for name in names], lambda key: state)


@pytest.mark.parametrize(
    ("inflight", "measured", "running", "waiting"),
    [
        pytest.param(7, engines(waiting=2, running=3), 5, 2, id="the gateways see more"),
        pytest.param(1, engines(waiting=2, running=3), 3, 2, id="others bypass the gateways"),
        pytest.param(4, engines(waiting=None, running=None), 4, None, id="no engine metrics"),
        pytest.param(4, engines(waiting=6, running=None), 0, 6, id="a dialect without running"),
        pytest.param(4, None, 4, None, id="no fresh sample"),
    ],
)
def test_running_is_what_either_side_sees_less_what_waits(inflight, measured, running, waiting):
    found = signals(NOW, Demand(inflight=inflight), ready("m-0"), measured)
    assert (found.running, found.waiting) == (running, waiting)


@pytest.mark.parametrize(
    ("demand", "seen", "measured", "metrics", "why"),
    [
        pytest.param(Demand(), ready("m-0"), engines(), True, None, id="fresh"),
        pytest.param(Demand(stale=True), ready("m-0"), engines(), True, "gateway", id="gateway"),
        pytest.param(Demand(), ready("m-0"), None, True, "no fresh sample of m-0", id="none"),
        pytest.param(
            Demand(), ready("m-0", "m-1"), engines(), True, "sample of m-1", id="one is missing"
        ),
        pytest.param(
            Demand(),
            ready("m-0"),
            engines(waiting=None, lacking=["waiting"]),
            True,
            "usable number for waiting",
            id="NaN",
        ),
        pytest.param(Demand(), ready("m-0"), None, False, None, id="metrics are not expected"),
        pytest.param(
            Demand(), ready("m-0", metrics=None), None, True, None, id="engine without a dialect"
        ),
        pytest.param(Demand(), ready(), None, True, None, id="at zero there is nothing to scrape"),
        pytest.param(
            Demand(), ready("m-0", deleting=True), None, True, None, id="a draining one counts not"
        ),
    ],
)
def test_stale_and_why(demand, seen, measured, metrics, why):
    found = signals(NOW, demand, seen, measured, metrics=metrics)
    assert found.stale is (why is not None)
    assert (why or "") in (found.stale_why or "")


def test_counters_become_differences_since_the_previous_step():
    demand = Demand(arrivals_total=10, completions_total=8, busy_seconds_total=4.0)
    first = signals(NOW, demand, ready("m-0"), engines())
    assert (first.arrivals, first.completions, first.busy_seconds) == (0, 0, 0.0)
    demand = Demand(arrivals_total=13, completions_total=9, busy_seconds_total=4.5)
    second = signals(NOW + 2, demand, ready("m-0"), engines(), previous=first.totals)
    assert (second.arrivals, second.completions, second.busy_seconds) == (3, 1, 0.5)
    assert second.totals == Totals(13, 9, 4.5)


@pytest.mark.parametrize(
    ("kv", "running", "slots"),
    [(None, 10, None), (0.5, 10, None), (0.95, 0, None), (0.9, 10, 5), (1.0, 20, 9), (1.0, 1, 1)],
)
def test_a_full_kv_cache_lowers_the_slots(kv, running, slots):
    measured = engines(running=running, kv=kv, pods=("m-0", "m-1"))
    assert signals(NOW, Demand(), ready("m-0", "m-1"), measured).slots == slots
