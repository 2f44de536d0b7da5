"""The partition of a cold start: nothing counted twice, nothing lost, whatever the clocks say."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.api import STAGES
from glowplug.observe import ReplicaState, StageSpan
from glowplug.observe.demand import First
from glowplug.observe.stages import Start, cold_start, partition, start_of
from glowplug.observe.timeline import PodInstants

FIRST = First("ns/m", "u", received=100.0, sent=104.0, first_token=104.5, replica_ready=103.9)
POD = PodInstants(created=100.1, scheduled=100.15, sandbox=100.7)
LAUNCHED = Start(
    pod=POD,
    launched_at=100.8,
    ready_at=103.9,
    spans=(
        StageSpan("restore", 100.8, 102.0),
        StageSpan("start", 102.0, 102.3),
        StageSpan("load", 102.3, 103.9),
        StageSpan("restore", 101.0, 102.5, hidden=True),
    ),
)


def told(start) -> dict[str, float]:
    return {name: round(s, 6) for name, s in start.stages.items() if s}


def test_a_whole_cold_start():
    start = cold_start(FIRST, LAUNCHED)
    assert start.total == 4.5
    assert told(start) == {
        "decide": 0.1,
        "schedule": 0.05,
        "sandbox": 0.55,
        "image": 0.1,
        "restore": 1.2,
        "start": 0.3,
        "load": 1.6,
        "route": 0.1,
        "first_token": 0.5,
    }
    assert start.hidden == {"restore": 1.5}
    assert (start.path, start.at) == ("cold", 104.5)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        pytest.param(
            Start(PodInstants(100.1, unschedulable=100.2, scheduled=102.2, sandbox=102.7)),
            {"decide": 0.1, "schedule": 0.1, "node": 2.0, "sandbox": 0.5, "unattributed": 1.3},
            id="waited for a node; launcher never heard",
        ),
        pytest.param(
            Start(PodInstants(created=99.0, scheduled=99.1, sandbox=101.0)),
            {"sandbox": 1.0, "unattributed": 3.0},
            id="the request came while the Pod was already starting",
        ),
        pytest.param(Start(), {"unattributed": 4.0}, id="nothing witnessed"),
        pytest.param(
            replace(LAUNCHED, pod=replace(POD, sandbox=101.6)),
            {
                "decide": 0.1,
                "schedule": 0.05,
                "sandbox": 0.65,
                "restore": 1.2,
                "start": 0.3,
                "load": 1.6,
                "route": 0.1,
            },
            id="kubelet told of the sandbox after the launcher ran in it",
        ),
        pytest.param(
            Start(POD, ready_at=104.2),
            {
                "decide": 0.1,
                "schedule": 0.05,
                "sandbox": 0.55,
                "unattributed": 3.3,
            },
            id="ready stamped after the request was sent: a clock ahead",
        ),
    ],
)
def test_missing_and_odd_stamps(start, expected):
    found = cold_start(FIRST, start)
    assert told(found) == pytest.approx({"first_token": 0.5} | expected)
    assert sum(found.stages.values()) == pytest.approx(found.total)


def test_a_restore_container_stands_in_for_the_launcher():
    state = ReplicaState("ready", at=103.9, ready_at=103.9)
    start = start_of(POD, state, (StageSpan("restore", 100.9, 102.4),))
    assert told(cold_start(FIRST, start)) == {
        "decide": 0.1,
        "schedule": 0.05,
        "sandbox": 0.55,
        "image": 0.2,
        "restore": 1.5,
        "start": 1.5,
        "route": 0.1,
        "first_token": 0.5,
    }


stamps = st.floats(min_value=0.0, max_value=1e10, allow_nan=False) | st.floats(
    min_value=1.7e9, max_value=1.7e9 + 100
)
spans = st.builds(
    StageSpan, st.sampled_from(STAGES), stamps, stamps | st.none(), hidden=st.booleans()
)


@given(stamps, stamps, st.lists(spans, max_size=12))
def test_stages_are_never_negative_and_sum_to_the_window(begin, end, given_spans):
    seconds = partition(begin, end, given_spans)
    assert set(seconds) == set(STAGES)
    assert min(seconds.values()) >= 0
    # 1e-6 s at today's epoch; stamps a thousand times larger have coarser floats.
    assert sum(seconds.values()) == pytest.approx(max(0.0, end - begin), abs=1e-6, rel=1e-12)


instants = st.builds(
    PodInstants, stamps | st.none(), stamps | st.none(), stamps | st.none(), stamps | st.none()
)
starts = st.builds(
    Start, instants, stamps | st.none(), stamps | st.none(), st.lists(spans, max_size=6).map(tuple)
)
firsts = st.builds(First, st.just("ns/m"), st.just("u"), stamps, stamps, stamps, st.none())


@given(firsts, starts)
def test_any_timeline_is_a_partition(first, start):
    found = cold_start(first, start)
    assert min(found.stages.values()) >= 0
    assert all(seconds >= 0 for seconds in found.hidden.values())
    assert sum(found.stages.values()) == pytest.approx(found.total, abs=1e-6, rel=1e-12)
