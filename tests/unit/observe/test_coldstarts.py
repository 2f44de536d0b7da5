"""A cold start is put together whatever arrives first: launcher, first token, or neither."""

import pytest

from glowplug.api import replicas_of
from glowplug.observe import ColdStarts, PodTimeline, ReplicaState, StageSpan
from glowplug.observe.demand import First

from .conftest import Cache, pod

T = 1_000_000.0
FIRST = First("ns/m", "uid-m-0", T - 0.1, T + 3.0, T + 3.2, T + 2.9)
READY = ReplicaState(
    "ready",
    at=T + 2.9,
    launched_at=T + 1.0,
    ready_at=T + 2.9,
    stages=(StageSpan("restore", T + 1.0, T + 2.0), StageSpan("load", T + 2.0, T + 2.9)),
)


@pytest.fixture
def scene(clock):
    cache, timeline, states, done = Cache(), PodTimeline(clock), {}, []
    cache.subscribe(timeline)
    starts = ColdStarts(timeline, states.get, cache.get, on_cold_start=done.append, clock=clock)
    cache.subscribe(starts.gone)
    cache.put(pod(version=1))
    clock.now = T + 0.05
    cache.put(pod(version=2, scheduled=True))
    clock.now = T + 0.6
    cache.put(pod(version=3, scheduled=True, sandbox_ready=True))
    clock.now = T + 3.2
    return starts, states, done, clock


def learn(starts, states, state) -> None:
    replica = replicas_of(pod())[0]
    states[replica.key] = state
    starts.changed(replica)


@pytest.mark.parametrize("order", ["launcher first", "token first"])
def test_both_orders_end_in_the_same_partition(scene, order):
    starts, states, done, _ = scene
    if order == "launcher first":
        learn(starts, states, READY)
        starts.first(FIRST)
    else:
        starts.first(FIRST)
        assert done == []
        learn(starts, states, READY)
    (found,) = done
    assert found.total == pytest.approx(3.3)
    assert found.stages["unattributed"] == pytest.approx(0.0, abs=1e-6)
    assert found.stages["restore"] == pytest.approx(1.0)
    assert starts.history("ns/m").stats("cold").samples == 1
    assert starts.history("ns/m").lead_times().cold == pytest.approx(2.9)


def test_a_launcher_never_heard_leaves_its_part_unattributed(scene):
    starts, _, done, clock = scene
    starts.first(FIRST)
    starts.tick()
    assert done == []
    clock.now += 5.1
    starts.tick()
    assert done[0].stages["unattributed"] == pytest.approx(2.4)
    assert sum(done[0].stages.values()) == pytest.approx(done[0].total)


def test_a_scale_up_that_nobody_waited_for_gives_a_lead_time_once(scene):
    starts, states, done, _ = scene
    learn(starts, states, READY)
    learn(starts, states, READY)
    assert done == []
    assert starts.history("ns/m").lead_times().cold == pytest.approx(2.9)
    starts.forget("ns/m")
    assert starts.history("ns/m").lead_times().cold is None
