"""What holds for any sequence of observations, however strange."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glowplug.api import Scaling, Warmth
from glowplug.decide import Autoscaler, Decision, LeadTimes, Observation

EPOCH = 1_767_960_000.0
SIGNALS = ("running", "waiting", "held")

sane = st.integers(0, 200).map(float) | st.floats(0, 200)
strange = st.none() | st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e18, 1e308])
value = st.one_of(sane, sane, sane, strange)
few = st.one_of(st.integers(0, 12).map(float), strange)
gap = st.one_of(
    st.floats(0, 30),
    st.sampled_from([0.0, 2.0, 2.0, 2.0, -3600.0, 6 * 3600.0, 1e9, math.nan, math.inf, 1e18]),
)
lead_times = st.builds(LeadTimes, cold=value, cached=value, standby=value, asleep=value)

observed = st.fixed_dictionaries(
    {
        **dict.fromkeys((*SIGNALS, "arrivals", "completions", "busy_seconds"), value),
        **dict.fromkeys(("ready", "starting", "asleep", "draining", "standbys"), few),
        "slots": st.none() | value,
        "lead_times": lead_times,
        "stale": st.booleans(),
        "gap": gap,
    }
)
stories = st.lists(observed, min_size=1, max_size=30)
clean = st.fixed_dictionaries(
    {
        **dict.fromkeys((*SIGNALS, "arrivals"), st.integers(0, 60).map(float)),
        **dict.fromkeys(("ready", "starting"), st.integers(0, 8).map(float)),
        "gap": st.floats(0.1, 40),
    }
)

configs = st.builds(
    lambda low, more, target, depth, idle, cron: Scaling.model_validate(
        {
            "minReplicas": low,
            "maxReplicas": max(1, low + more),
            "targetQueueDepth": depth,
            "idleAfter": f"{idle}s",
            "schedule": [{"start": "0 8 * * *", "end": "0 18 * * *", "replicas": 1}] * cron,
        }
        | ({"targetConcurrency": target} if target else {})
    ),
    st.integers(0, 3),
    st.integers(0, 9),
    st.none() | st.integers(1, 50),
    st.integers(0, 5),
    st.integers(1, 400),
    st.integers(0, 1),
)
promises = st.none() | st.floats(1, 3600).map(lambda s: Warmth(cold_start=s))


def replay(
    scaling: Scaling, warmth: Warmth | None, story: list[dict[str, Any]]
) -> tuple[list[Observation], list[Decision]]:
    scaler, now, seen = Autoscaler(scaling, warmth), EPOCH, []
    for moment in story:
        now = now + moment["gap"] if math.isfinite(now) else EPOCH
        seen.append(Observation(now=now, **{k: v for k, v in moment.items() if k != "gap"}))
    return seen, [scaler.step(observation) for observation in seen]


def broken(value: float | None) -> bool:
    return value is None or not math.isfinite(value) or value < 0


@given(configs, promises, stories)
def test_every_decision_stays_in_bounds_and_explains_itself(scaling, warmth, story):
    _, decisions = replay(scaling, warmth, story)

    for decision in decisions:
        assert scaling.min_replicas <= decision.replicas <= scaling.max_replicas
        assert 0 <= decision.asleep <= scaling.max_replicas
        assert decision.reason.endswith(".")
        assert any(char.isdigit() for char in decision.reason)
        assert len(decision.reason) < 1024
        assert all(math.isfinite(step.value) for step in decision.steps)


@given(configs, promises, stories)
def test_nothing_is_lowered_on_stale_or_broken_signals(scaling, warmth, story):
    seen, decisions = replay(scaling, warmth, story)

    for observation, before, after in zip(seen[1:], decisions, decisions[1:], strict=False):
        signals = (*(getattr(observation, s) for s in SIGNALS), observation.now)
        if observation.stale or any(broken(signal) for signal in signals):
            assert after.replicas >= before.replicas
            assert after.asleep >= before.asleep


@given(configs, promises, stories, st.sampled_from(SIGNALS), st.floats(0, 1e6))
def test_more_demand_never_gives_fewer_replicas(scaling, warmth, story, signal, more):
    if broken(story[-1][signal]):
        story[-1][signal] = 0.0
    larger = [*story[:-1], {**story[-1], signal: story[-1][signal] + more}]

    _, less = replay(scaling, warmth, story)
    _, greater = replay(scaling, warmth, larger)

    assert greater[-1].replicas >= less[-1].replicas


@given(configs, promises, stories)
def test_equal_observations_decide_alike(scaling, warmth, story):
    assert replay(scaling, warmth, story)[1] == replay(scaling, warmth, story)[1]


@given(configs, stories, st.integers(1, 500))
def test_a_held_request_at_zero_starts_a_replica_at_once(scaling, story, held):
    after = {**story[-1], "held": float(held), "gap": 0.0}

    _, decisions = replay(scaling, None, [*story, after])

    assert decisions[-1].replicas >= 1


@given(configs, st.lists(clean, min_size=1, max_size=30), st.integers(0, 8))
def test_starting_replicas_are_not_started_twice(scaling, story, starting):
    """What is wanted does not grow because a replica went from missing to starting."""
    more = [*story[:-1], {**story[-1], "starting": story[-1]["starting"] + starting}]
    if len(story) == 1:
        return  # the first observation tells what a restart found

    assert replay(scaling, None, story)[1][-1] == replay(scaling, None, more)[1][-1]


@given(configs, st.lists(clean, min_size=2, max_size=40))
def test_nothing_is_released_within_idle_after_of_the_start(scaling, story):
    seen, decisions = replay(scaling, None, story)
    found = min(scaling.max_replicas, int(seen[0].ready + seen[0].starting))

    for observation, decision in zip(seen, decisions, strict=True):
        if observation.now - seen[0].now < scaling.idle_after - 1e-3:
            assert decision.replicas >= found


@given(configs, st.lists(clean, min_size=2, max_size=40))
def test_zero_is_reached_no_sooner_than_idle_after_the_last_demand(scaling, story):
    seen, decisions = replay(scaling, None, story)
    demanded = None

    for observation, decision in zip(seen, decisions, strict=True):
        if observation.running + observation.waiting + observation.held > 0:
            demanded = observation.now
        if demanded is not None and observation.now - demanded < scaling.idle_after - 1e-3:
            assert decision.replicas >= 1


@settings(max_examples=40)
@given(st.integers(1, 100), st.floats(0, 0.5), st.integers(0, 2**32 - 1))
def test_noise_around_a_constant_load_does_not_flap(level, noise, seed):
    """An hour at 2 s: the count turns at most twice per minute-long hold, in fact far less."""
    random = np.random.default_rng(seed)
    scaler = Autoscaler(Scaling(max_replicas=100, target_concurrency=4))
    load = level * (1 + noise * random.standard_normal(1800))
    story = [max(0.0, round(requests)) for requests in load]
    lead = LeadTimes(cold=10.0)

    decided = [
        scaler.step(
            Observation(
                now=EPOCH + 2 * i,
                **dict.fromkeys(("arrivals", "waiting", "held", "starting"), 0.0),
                running=requests,
                ready=float(level),
                lead_times=lead,
            )
        ).replicas
        for i, requests in enumerate(story)
    ]

    moves = [b - a for a, b in pairwise(decided) if b != a]
    turns = sum(1 for a, b in pairwise(moves) if (a > 0) != (b > 0))
    assert turns <= 2 * 60
