"""How many standbys a shape holds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.decide import StandbyPlanner

DAY = 24 * 3600.0


def plan(launches: list[tuple[float, float]], attainment: float = 0.9, most: int = 10) -> int:
    planner = StandbyPlanner(claim_s=5, refill_s=55, max_standbys=most, attainment=attainment)
    pool = 0
    for now, count in launches:
        pool = planner.step(now, count)
    return pool


@pytest.mark.parametrize(
    ("launches", "pool"),
    [
        pytest.param([(0, 0)], 0, id="nobody launches, nothing is held"),
        pytest.param([(0, 1)], 1, id="one launch"),
        pytest.param([(100.0 * i, 1) for i in range(20)], 1, id="far apart: one refills in time"),
        pytest.param([(0, 1), (59, 1)], 2, id="two within the refill time"),
        pytest.param([(0, 1), (60, 1)], 1, id="two just outside it"),
        pytest.param([(0, 3)], 3, id="three at once"),
        pytest.param([(0, 30)], 10, id="never more than allowed"),
        pytest.param(
            [(100.0 * i, 1) for i in range(30)] + [(3000, 3)], 1, id="a rare crowd of 3 in 33"
        ),
        pytest.param(
            [(100.0 * i, 1) for i in range(20)] + [(2000, 3)], 3, id="of 3 in 23: over a tenth"
        ),
        pytest.param([(0, 5), (DAY, 0)], 0, id="forgotten after a day"),
        pytest.param([(0, 5), (DAY - 1, 0)], 5, id="not before"),
        pytest.param([(100, 1), (50, 1)], 2, id="time that goes backwards stands still"),
        pytest.param([(0, math.nan), (1, -3), (2, math.inf), (math.nan, 1)], 1, id="broken counts"),
    ],
)
def test_the_pool_serves_the_wanted_share(launches: list[tuple[float, float]], pool: int) -> None:
    assert plan(launches) == pool


@given(
    st.lists(st.tuples(st.floats(0, 500), st.integers(0, 5)), min_size=1, max_size=60),
    st.floats(0.5, 0.999),
)
def test_the_wanted_share_of_past_launches_would_have_found_one(gaps, attainment):
    now, story = 0.0, []
    for gap, count in gaps:
        now += gap
        story.append((now, count))

    pool = plan(story, attainment, most=10_000)

    crowds = [
        (sum(n for then, n in story[: i + 1] if then > now - 60), count)
        for i, (now, count) in enumerate(story)
        if count
    ]
    served = sum(count for crowd, count in crowds if crowd <= pool)
    assert served >= attainment * sum(count for _, count in crowds) - 1e-6


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=50))
def test_anything_gives_a_pool_in_bounds(launches):
    assert 0 <= plan(launches) <= 10
