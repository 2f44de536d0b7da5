"""Budgets of pools: what fits is granted at once, what does not is arbitrated once a round."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.control.budget import ROUND_S, Budgets
from glowplug.decide import Bid

from .conftest import Clock


@pytest.fixture
def budgets(clock: Clock) -> Budgets:
    return Budgets(clock)


def bid(key: str, wanted: int, value: float = 1.0, gpus: int = 1) -> Bid:
    return Bid(key, wanted, gpus, value)


def test_what_fits_is_granted_at_once(budgets: Budgets) -> None:
    assert budgets.grant("p", 4, bid("a", 3)) == 3
    assert budgets.grant("p", 4, bid("b", 1)) == 1


def test_the_more_valuable_bid_wins(budgets: Budgets, clock: Clock) -> None:
    budgets.grant("p", 4, bid("a", 4, value=1))
    budgets.grant("p", 4, bid("b", 3, value=9))
    clock.now += ROUND_S
    assert budgets.grant("p", 4, bid("b", 3, value=9)) == 3
    assert budgets.grant("p", 4, bid("a", 4, value=1)) == 1


def test_between_rounds_nobody_takes_what_another_holds(budgets: Budgets, clock: Clock) -> None:
    budgets.grant("p", 4, bid("a", 3))
    budgets.grant("p", 4, bid("b", 5))
    assert budgets.grant("p", 4, bid("c", 5)) == 0


def test_a_model_that_leaves_frees_its_gpus(budgets: Budgets) -> None:
    budgets.grant("p", 2, bid("a", 2))
    budgets.forget("a")
    assert budgets.grant("p", 2, bid("b", 2)) == 2


def test_a_model_that_moves_leaves_its_old_pool(budgets: Budgets) -> None:
    budgets.grant("p", 2, bid("a", 2))
    budgets.grant("q", 2, bid("a", 2))
    assert budgets.grant("p", 2, bid("b", 2)) == 2


def test_a_changed_budget_counts(budgets: Budgets) -> None:
    assert budgets.grant("p", 1, bid("a", 2)) == 1
    assert budgets.grant("p", 2, bid("a", 2)) == 2


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 9), st.integers(1, 4), st.floats(0, 5)),
        max_size=40,
    ),
    st.integers(0, 12),
)
def test_never_more_gpus_than_the_budget(
    asked: list[tuple[str, int, int, float]], budget: int
) -> None:
    clock = Clock()
    budgets = Budgets(clock)
    gpus_each = {"a": 1, "b": 2, "c": 1, "d": 4}
    granted: dict[str, int] = {}
    for key, wanted, _, step in asked:
        clock.now += step
        granted[key] = budgets.grant("p", budget, bid(key, wanted, gpus=gpus_each[key]))
    clock.now += ROUND_S
    for key in granted:
        last = next(wanted for k, wanted, _, _ in reversed(asked) if k == key)
        granted[key] = budgets.grant("p", budget, bid(key, last, gpus=gpus_each[key]))
    assert sum(count * gpus_each[key] for key, count in granted.items()) <= budget
