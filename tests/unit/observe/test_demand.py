"""Merging demand: gauges are replaced, counters only grow, silence makes stale."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.observe.demand import Demand, DemandBook, First, MalformedLineError

M = "ns/m"


def line(epoch: object = 1, **models: dict) -> dict:
    return {"gateway": "g", "epoch": epoch, "models": {f"ns/{n}": e for n, e in models.items()}}


def entry(held=0, inflight=0, arrivals=0, completions=0, busy=0.0, **more) -> dict:
    counters = {"arrivals": arrivals, "completions": completions, "busySeconds": busy}
    return {"held": held, "inflight": inflight} | counters | more


def book(*keys: str, from_start: bool = False) -> DemandBook:
    made = DemandBook()
    for key in keys:
        made.found(key, 0.0, serving=True, from_start=from_start)
    return made


def test_gauges_add_up_over_gateways_and_go_with_their_gateway():
    demand = book("a", "b")
    demand.line("a", line(m=entry(held=2, inflight=1, pods={"p": 1})), 0.0, full=True)
    demand.line("b", line(m=entry(held=1, inflight=4, pods={"p": 3, "q": 1})), 0.0, full=True)
    assert demand.snapshot(M, 1.0) == Demand(held=3, inflight=5, by_pod={"p": 4, "q": 1})
    demand.gone("a")
    assert demand.snapshot(M, 1.0) == Demand(held=1, inflight=4, by_pod={"p": 3, "q": 1})


def test_a_new_epoch_counts_from_zero():
    demand = book("a")
    demand.line("a", line(1, m=entry(arrivals=10, completions=8, busy=4.0)), 0.0, full=True)
    demand.line("a", line(2, m=entry(arrivals=3, completions=1, busy=0.5)), 1.0, full=True)
    after = demand.snapshot(M, 1.0)
    assert (after.arrivals_total, after.completions_total, after.busy_seconds_total) == (13, 9, 4.5)


def test_what_a_gateway_counted_before_this_operator_started_is_history():
    demand = book("a", from_start=True)
    demand.line("a", line(m=entry(arrivals=1_000)), 0.0, full=True)
    assert demand.snapshot(M, 0.0).arrivals_total == 0
    demand.line("a", line(m=entry(arrivals=1_002), new=entry(arrivals=1)), 1.0, full=False)
    assert demand.snapshot(M, 1.0).arrivals_total == 2
    assert demand.snapshot("ns/new", 1.0).arrivals_total == 1


def test_a_gateway_that_returns_to_the_slice_is_not_counted_twice():
    demand = book("a")
    demand.line("a", line(m=entry(held=1, arrivals=10)), 0.0, full=True)
    demand.gone("a")
    assert demand.snapshot(M, 0.0).held == 0
    demand.found("a", 5.0, serving=True, from_start=False)
    demand.line("a", line(m=entry(held=1, arrivals=12)), 5.0, full=True)
    assert demand.snapshot(M, 5.0).arrivals_total == 12


def test_a_full_line_drops_models_that_it_does_not_name():
    demand = book("a")
    demand.line("a", line(m=entry(held=1), other=entry(held=1)), 0.0, full=True)
    demand.line("a", line(other=entry(held=1)), 1.0, full=False)
    assert demand.snapshot(M, 1.0).held == 1, "later lines only name what changed"
    demand.line("a", line(other=entry(held=1)), 2.0, full=True)
    assert demand.snapshot(M, 2.0).held == 0


@pytest.mark.parametrize(
    ("heard_at", "serving", "now", "model", "stale"),
    [
        pytest.param(0.0, True, 3.0, M, False, id="three seconds are allowed"),
        pytest.param(0.0, True, 3.1, M, True, id="silent: its models are stale"),
        pytest.param(0.0, True, 3.1, "ns/x", False, id="silent: others' models are not"),
        pytest.param(0.0, False, 3.1, M, True, id="a terminating gateway may still hold some"),
        pytest.param(None, True, 3.1, M, True, id="never heard: any model may be held there"),
        pytest.param(None, False, 99.0, M, False, id="never heard nor served: nobody reaches it"),
    ],
)
def test_staleness(heard_at, serving, now, model, stale):
    demand = DemandBook()
    demand.found("a", 0.0, serving=serving, from_start=False)
    if heard_at is not None:
        demand.line("a", line(m=entry(held=1)), heard_at, full=True)
    assert demand.snapshot(model, now).stale is stale
    if heard_at is not None:
        assert demand.snapshot(M, now).held == 1, "a silent gateway's demand stays"


def test_woken_is_said_when_more_is_held_or_in_flight_over_all_gateways():
    demand = book("a", "b")
    assert demand.line("a", line(m=entry(held=1)), 0.0, full=True).woken == (M,)
    assert demand.line("a", line(m=entry(held=1)), 0.1, full=False).woken == ()
    assert demand.line("a", line(m=entry(inflight=1)), 0.2, full=False).woken == ()
    assert demand.line("b", line(m=entry(inflight=1)), 0.3, full=True).woken == (M,)
    assert demand.line("a", line(m=entry()), 0.4, full=False).woken == ()
    assert demand.line("b", line(m=entry(held=2)), 0.5, full=False).woken == (M,)


def test_first_tokens_are_passed_on():
    record = {"model": M, "pod": "u", "received": 1.0, "sent": 2.0, "firstToken": 3.0}
    news = book("a").line("a", line() | {"firsts": [record]}, 0.0, full=True)
    assert news.firsts == (First(M, "u", 1.0, 2.0, 3.0, None),)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"epoch": 1}, "'models' is NoneType"),
        (line(m="x"), r"models\['ns/m'\] is not an object"),
        (line(m=entry(held=-1)), r"held is -1"),
        (line(m=entry(inflight=float("nan"))), "inflight is nan"),
        (line(m=entry(arrivals="7")), "arrivals is not a number"),
        (line(m=entry(pods=[])), "'pods' is list"),
        (line() | {"firsts": [{"model": M}]}, "firsts: KeyError"),
    ],
)
def test_a_malformed_line_changes_nothing(bad, sentence):
    demand = book("a")
    demand.line("a", line(m=entry(held=1)), 0.0, full=True)
    with pytest.raises(MalformedLineError, match=sentence):
        demand.line("a", bad, 1.0, full=True)
    assert demand.snapshot(M, 1.0) == Demand(held=1)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["request", "restart", "reconnect", "leave"]), st.sampled_from("ab")
        ),
        max_size=60,
    )
)
def test_every_request_is_counted_once_whatever_gateways_do(steps):
    demand = book("a", "b")
    epoch = {"a": 1, "b": 1}
    count = {"a": 0, "b": 0}
    told, full = 0, {"a": True, "b": True}
    for step, key in steps:
        if step == "request":
            count[key] += 1
            told += 1
        elif step == "restart":
            epoch[key], count[key], full[key] = epoch[key] + 1, 0, True
        elif step == "reconnect":
            full[key] = True
        else:
            demand.gone(key)
            demand.found(key, 0.0, serving=True, from_start=False)
            full[key] = True
        before = demand.snapshot(M, 0.0).arrivals_total
        demand.line(key, line(epoch[key], m=entry(arrivals=count[key])), 0.0, full=full[key])
        full[key] = False
        assert demand.snapshot(M, 0.0).arrivals_total >= before
    assert demand.snapshot(M, 0.0).arrivals_total == told
