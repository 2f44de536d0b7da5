"""Who gets the GPUs."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.decide import Arbiter, Bid
from glowplug.decide.arbiter import PATIENCE


@pytest.mark.parametrize(
    ("budget", "bids", "granted"),
    [
        pytest.param(4, [], {}, id="nobody asks"),
        pytest.param(4, [Bid("a", 2, 1, 1.0), Bid("b", 2, 1, 9.0)], {"a": 2, "b": 2}, id="enough"),
        pytest.param(3, [Bid("a", 2, 1, 1.0), Bid("b", 2, 1, 9.0)], {"a": 1, "b": 2}, id="value"),
        pytest.param(3, [Bid("a", 3, 1, 5.0), Bid("b", 3, 1, 5.0)], {"a": 2, "b": 1}, id="in turn"),
        pytest.param(
            5, [Bid("a", 2, 4, 9.0), Bid("b", 2, 1, 1.0)], {"a": 1, "b": 1}, id="what fits"
        ),
        pytest.param(
            2, [Bid("a", 1, 8, 9.0), Bid("b", 1, 1, 1.0)], {"a": 0, "b": 1}, id="never fits"
        ),
        pytest.param(
            1, [Bid("a", 1, 1, math.nan), Bid("b", 1, 1, 0.0)], {"a": 0, "b": 1}, id="no value"
        ),
        pytest.param(0, [Bid("a", 3, 0, 1.0)], {"a": 3}, id="replicas without GPUs are free"),
        pytest.param(math.nan, [Bid("a", 1, 1, 1.0)], {"a": 0}, id="no known budget"),
        pytest.param(math.inf, [Bid("a", 9, 8, 1.0)], {"a": 9}, id="no limit"),
    ],
)
def test_grants(budget: float, bids: list[Bid], granted: dict[str, int]) -> None:
    assert Arbiter(budget).step(bids) == granted


def test_a_bid_refused_thirty_times_goes_first_and_stays_for_a_while() -> None:
    arbiter = Arbiter(1)
    bids = [Bid("rich", 1, 1, 100.0), Bid("poor", 1, 1, 1.0)]

    winners = [
        max(grants, key=lambda key: grants[key]) for grants in map(arbiter.step, [bids] * 90)
    ]

    assert winners == ["rich"] * PATIENCE + ["poor"] * PATIENCE + ["rich"] * PATIENCE


def test_a_bid_that_pauses_starts_its_patience_anew() -> None:
    arbiter = Arbiter(1)
    rich, poor = Bid("rich", 1, 1, 100.0), Bid("poor", 1, 1, 1.0)
    for _ in range(PATIENCE - 1):
        arbiter.step([rich, poor])
    arbiter.step([rich])

    assert [arbiter.step([rich, poor])["poor"] for _ in range(PATIENCE + 1)] == [0] * PATIENCE + [1]


some_bids = st.lists(
    st.builds(
        Bid,
        key=st.sampled_from("abcdefgh"),
        wanted=st.integers(0, 5),
        gpus_each=st.integers(0, 4),
        marginal_value=st.floats(),
    ),
    max_size=8,
    unique_by=lambda bid: bid.key,
)


@given(st.integers(0, 12), st.lists(some_bids, min_size=1, max_size=80))
def test_never_more_than_wanted_nor_than_there_is_and_nothing_idle(budget, steps):
    arbiter = Arbiter(budget)
    for bids in steps:
        granted = arbiter.step(bids)

        assert granted.keys() == {bid.key for bid in bids}
        assert all(0 <= granted[bid.key] <= bid.wanted for bid in bids)
        left = budget - sum(granted[bid.key] * bid.gpus_each for bid in bids)
        assert left >= 0
        assert all(bid.gpus_each > left for bid in bids if granted[bid.key] < bid.wanted)


@given(st.integers(1, 4), st.lists(st.floats(0, 100), min_size=2, max_size=8))
def test_nobody_starves(budget, values):
    arbiter = Arbiter(budget)
    bids = [Bid(f"m{i}", 2, 1, value) for i, value in enumerate(values)]
    served: Counter[str] = Counter()

    for _ in range(PATIENCE + len(bids)):
        served.update({key: n for key, n in arbiter.step(bids).items() if n})

    assert served.keys() == {bid.key for bid in bids}
