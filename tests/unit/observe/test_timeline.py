"""PodTimeline: what was seen, when it was seen, and nothing that was not."""

from glowplug.observe import PodTimeline
from glowplug.observe.timeline import PodInstants

from .conftest import Cache, pod


def test_notes_each_milestone_when_it_arrives(clock):
    cache, timeline = Cache(), PodTimeline(clock)
    cache.subscribe(timeline)
    steps = [
        {},
        {"unschedulable": "0/1 nodes"},
        {"scheduled": True},
        {"scheduled": True, "sandbox_ready": True},
        {"scheduled": True, "sandbox_ready": True, "ready": True},
    ]
    for version, step in enumerate(steps, 1):
        cache.put(pod(version=version, **step))
        clock.now += 1.0
    t = 1_000_000.0
    assert timeline.get("uid-m-0") == PodInstants(t, t + 1, t + 2, t + 3)
    cache.delete(pod(version=9))
    assert timeline.get("uid-m-0") == PodInstants()


def test_an_operator_that_comes_later_has_witnessed_only_what_follows(clock):
    cache, timeline = Cache(), PodTimeline(clock)
    cache.subscribe(timeline)
    clock.now += 60.0
    cache.put(pod(version=1, scheduled=True))
    clock.now += 1.0
    cache.put(pod(version=2, scheduled=True, sandbox_ready=True))
    assert timeline.get("uid-m-0") == PodInstants(sandbox=clock.now)
