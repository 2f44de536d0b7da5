"""The policy by example: each case is a story of observations and the counts they lead to."""

from typing import Any

import numpy as np
import pytest

from glowplug.api import Scaling, Warmth
from glowplug.decide import Autoscaler, DemandHistory, LeadTimes, Observation

NOON = 1_767_960_000.0  # Friday 2026-01-09, 12:00 UTC
QUIET = dict.fromkeys(
    (
        *("arrivals", "completions", "busy_seconds", "running", "waiting", "held"),
        *("ready", "starting", "asleep", "draining", "standbys"),
    ),
    0.0,
)
HOUR = 3600.0


def see(at: float = 0.0, **values: Any) -> Observation:
    return Observation(now=NOON + at, **{**QUIET, **values})


def scaling(**values: Any) -> Scaling:
    return Scaling.model_validate({"idleAfter": "60s", "targetConcurrency": 4, **values})


def counts(scaler: Autoscaler, *story: Observation) -> list[int]:
    return [scaler.step(seen).replicas for seen in story]


@pytest.mark.parametrize(
    ("seen", "replicas"),
    [
        pytest.param(see(), 0, id="nothing asked, nothing started"),
        pytest.param(see(held=1), 1, id="the first held request starts a replica"),
        pytest.param(see(held=4), 1, id="as many as one replica takes"),
        pytest.param(see(held=5), 2, id="one more than that"),
        pytest.param(see(held=30), 8, id="a herd starts what it needs, at once"),
        pytest.param(see(held=30, starting=8), 8, id="starting replicas are supply"),
        pytest.param(see(held=30, ready=5, starting=3), 8, id="so are they beside ready ones"),
        pytest.param(see(held=1000), 8, id="never more than maxReplicas"),
        pytest.param(see(running=4, waiting=3, held=2), 3, id="all three make demand"),
        pytest.param(see(running=0.5), 1, id="a mean of less than one request is demand"),
        pytest.param(see(arrivals=3), 0, id="clients that left before zero was left start nothing"),
    ],
)
def test_the_first_decision(seen: Observation, replicas: int) -> None:
    assert Autoscaler(scaling()).step(seen).replicas == replicas


@pytest.mark.parametrize(
    ("target", "slots", "each"),
    [
        pytest.param(4, 10, 4, id="targetConcurrency wins over slots"),
        pytest.param(None, 10, 10, id="slots win over what was learned"),
        pytest.param(None, 0.25, 1, id="a replica takes one request at least"),
        pytest.param(None, None, 16, id="without any of them, 16"),
    ],
)
def test_what_a_replica_is_taken_to_serve(
    target: int | None, slots: float | None, each: float
) -> None:
    config = {"maxReplicas": 1000} | ({"targetConcurrency": target} if target else {})
    scaler = Autoscaler(Scaling.model_validate(config))

    decision = scaler.step(see(held=100, slots=slots))

    assert decision.replicas == -(-100 // each)
    assert {step.name: step.value for step in decision.steps}["capacity"] == each


def test_capacity_is_learned_where_the_queue_shows_it() -> None:
    scaler = Autoscaler(Scaling())
    full = {"running": 6, "waiting": 4, "ready": 1}

    story = [see(2 * i, **full) for i in range(5)]

    assert counts(scaler, *story)[0] == 1, "10 requests are fewer than the 16 assumed"
    assert counts(scaler, see(10, **full)) == [2], "6 at once is what it really takes"
    assert counts(scaler, see(12, running=12, ready=2, held=7)) == [4]


def test_one_replica_that_just_came_up_teaches_nothing() -> None:
    scaler = Autoscaler(Scaling())

    story = (
        see(0, running=1, waiting=12, ready=1),
        see(2, running=6, waiting=7, ready=1),
        see(4, running=6, waiting=7, ready=2),
    )

    assert max(counts(scaler, *story)) <= 3


def test_a_queue_that_stays_means_too_few_whatever_the_target_says() -> None:
    scaler = Autoscaler(scaling(targetConcurrency=100))
    stuck = {"running": 5, "waiting": 6, "ready": 2}

    assert counts(scaler, see(0, **stuck), see(2, **stuck)) == [2, 3]
    assert counts(scaler, see(4, **stuck, starting=1)) == [3], "what is starting is not enough yet"


def test_waiting_that_collapses_does_not_release() -> None:
    scaler = Autoscaler(scaling())

    assert counts(
        scaler,
        see(0, running=8, waiting=8, ready=2),
        see(2, running=8, waiting=0, ready=2, starting=2),
        see(4, running=8, waiting=0, ready=4),
    ) == [4, 4, 4]


def test_zero_comes_exactly_idle_after_the_last_demand() -> None:
    scaler = Autoscaler(scaling())

    assert counts(
        scaler,
        see(0, held=1, arrivals=1),
        see(20, running=1, ready=1),
        see(79, ready=1),
        see(79.9, ready=1),
        see(80, ready=1),
    ) == [1, 1, 1, 1, 0]


def test_requests_between_two_looks_are_demand() -> None:
    scaler = Autoscaler(scaling())

    assert counts(
        scaler,
        see(0, running=1, ready=1),
        see(50, arrivals=2, completions=3, busy_seconds=0.3, ready=1),
        see(100, ready=1),
        see(110, ready=1),
    ) == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("cold", "held_for"),
    [
        pytest.param(5.0, 60, id="short starts: a minute"),
        pytest.param(40.0, 120, id="long starts: three of them"),
        pytest.param(500.0, 300, id="never longer than idleAfter"),
        pytest.param(None, 300, id="unknown starts: idleAfter"),
    ],
)
def test_a_count_is_held_by_what_it_takes_to_get_it_back(
    cold: float | None, held_for: float
) -> None:
    scaler = Autoscaler(scaling(idleAfter="5m"))
    lead = LeadTimes(cold=cold)
    scaler.step(see(0, held=20, lead_times=lead))
    few = {"running": 4, "ready": 5, "lead_times": lead}

    assert counts(scaler, see(held_for - 1, **few), see(held_for, **few)) == [5, 1]


def test_min_replicas_always_run() -> None:
    scaler = Autoscaler(scaling(minReplicas=2))

    assert counts(scaler, see(0), see(HOUR, ready=2), see(2 * HOUR, held=9, ready=2)) == [2, 2, 3]


def test_nothing_is_released_after_a_restart_before_one_idle_after() -> None:
    scaler = Autoscaler(scaling())

    assert counts(
        scaler,
        see(0, ready=3, starting=1, asleep=2),
        see(59, ready=4),
        see(60, ready=4),
    ) == [4, 4, 0]


@pytest.mark.parametrize(
    ("arrivals", "story"),
    [
        pytest.param([5.0] + [0.0] * 10, [0, 0], id="idle for longer than idleAfter"),
        pytest.param([5.0, 0.0, 0.0], [2, 0], id="idle for 20 s of 60: 40 s are left"),
        pytest.param([0.0, float("nan")], [2, 0], id="what is not known is demand"),
        pytest.param([], [2, 0], id="an empty history says nothing"),
    ],
)
def test_history_that_was_read_back_shortens_that(arrivals: list[float], story: list[int]) -> None:
    history = DemandHistory(NOON - 10 * len(arrivals), 10.0, np.array(arrivals))
    scaler = Autoscaler(scaling(), history=history)

    assert counts(scaler, see(0, ready=2), see(60, ready=2)) == story


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "broken",
    [
        {"stale": True},
        *({signal: None} for signal in ("running", "waiting", "held", "arrivals")),
        *({signal: NAN} for signal in ("running", "waiting", "held", "ready", "starting", "now")),
        {"running": INF},
        {"waiting": -1.0},
        {"ready": None},
        {"slots": NAN},
        {"slots": 0.0},
    ],
    ids=str,
)
def test_nothing_is_released_on_signals_that_are_not_there(broken: dict[str, Any]) -> None:
    scaler = Autoscaler(scaling())
    assert counts(scaler, see(0, running=12, ready=3), see(50, running=1, ready=3)) == [3, 3]

    late = see(200, ready=3)
    seen = {name: getattr(late, name) for name in (*QUIET, "now", "slots", "stale")} | broken

    assert scaler.step(Observation(**seen)).replicas == 3


@pytest.mark.parametrize(
    ("seen", "replicas"),
    [
        pytest.param({"held": 8}, 4, id="held raises: 8 besides the 6 last seen"),
        pytest.param({"waiting": 500}, 2, id="an old queue does not"),
        pytest.param({"running": 500}, 2, id="nor do old running requests"),
        pytest.param({"held": None}, 2, id="nor what is missing"),
    ],
)
def test_stale_signals_raise_only_for_held(seen: dict[str, Any], replicas: int) -> None:
    scaler = Autoscaler(scaling())
    scaler.step(see(0, running=6, ready=2))

    assert counts(scaler, see(2, ready=2, stale=True, **seen)) == [replicas]


def test_a_supply_that_is_not_known_at_first_is_found_later() -> None:
    scaler = Autoscaler(scaling())

    assert counts(scaler, see(0, ready=None), see(2, ready=3), see(61, ready=3)) == [0, 3, 3]
    assert counts(scaler, see(62, ready=3)) == [0]


@pytest.mark.parametrize(
    ("at", "replicas"),
    [
        pytest.param(-4 * HOUR - 1, 0, id="a second before"),
        pytest.param(-4 * HOUR, 3, id="8:00"),
        pytest.param(0, 3, id="noon"),
        pytest.param(6 * HOUR - 1, 3, id="a second before its end"),
        pytest.param(6 * HOUR, 0, id="18:00"),
        pytest.param(24 * HOUR, 0, id="Saturday noon"),
        pytest.param(3 * 24 * HOUR, 3, id="Monday noon"),
    ],
)
def test_a_schedule_is_a_floor_between_its_times(at: float, replicas: int) -> None:
    office = {"start": "0 8 * * 1-5", "end": "0 18 * * 1-5", "replicas": 3}

    assert Autoscaler(scaling(schedule=[office])).step(see(at)).replicas == replicas


def test_a_schedule_is_read_in_its_time_zone_and_followed() -> None:
    early = {"start": "0 13 * * *", "end": "5 13 * * *", "replicas": 2}
    scaler = Autoscaler(scaling(schedule=[{**early, "timezone": "Europe/Berlin"}]))

    story = [see(at) for at in (-1, 0, 299, 300, 24 * HOUR, 24 * HOUR + 300)]

    assert counts(scaler, *story) == [0, 2, 2, 0, 2, 0]


def test_the_highest_of_several_schedules_counts_and_max_bounds_it() -> None:
    always = [{"start": "0 0 * * *", "end": "59 23 * * *", "replicas": n} for n in (2, 5)]

    decision = Autoscaler(scaling(schedule=always, maxReplicas=5)).step(see())

    assert decision.replicas == 5
    assert decision.reason == "A schedule keeps 5 replicas."


@pytest.mark.parametrize(
    ("lead", "standbys", "kept"),
    [
        pytest.param(LeadTimes(), 0, (0, 0), id="nothing known: the first start will tell"),
        pytest.param(LeadTimes(cold=15), 0, (0, 0), id="a cold start keeps the promise"),
        pytest.param(LeadTimes(cold=90), 0, (1, 0), id="it does not: one stays hot"),
        pytest.param(LeadTimes(cold=90, cached=12), 0, (0, 0), id="from the cache it does"),
        pytest.param(LeadTimes(cold=90, asleep=3), 0, (0, 1), id="one asleep is enough"),
        pytest.param(LeadTimes(cold=90, asleep=30), 0, (1, 0), id="waking takes too long"),
        pytest.param(LeadTimes(cold=90, standby=4), 1, (0, 0), id="a standby keeps it"),
        pytest.param(LeadTimes(cold=90, standby=4), 0, (1, 0), id="there is no standby"),
        pytest.param(LeadTimes(cold=NAN, standby=INF), 1, (0, 0), id="broken lead times"),
    ],
)
def test_the_cheapest_warmth_that_keeps_the_promise(
    lead: LeadTimes, standbys: int, kept: tuple[int, int]
) -> None:
    scaler = Autoscaler(scaling(), warmth=Warmth.model_validate({"coldStart": "20s"}))

    decision = scaler.step(see(lead_times=lead, standbys=standbys))

    assert (decision.replicas, decision.asleep) == kept


def test_a_cold_lead_time_that_goes_missing_does_not_end_the_promise() -> None:
    scaler = Autoscaler(scaling(), warmth=Warmth(cold_start=20.0))

    story = (see(0, lead_times=LeadTimes(cold=90)), see(HOUR, lead_times=LeadTimes()))

    assert counts(scaler, *story) == [1, 1]


def test_time_that_goes_backwards_holds_longer_not_shorter() -> None:
    scaler = Autoscaler(scaling())

    assert counts(
        scaler,
        see(0, held=8),
        see(30, ready=2),
        see(-HOUR, ready=2),
        see(-HOUR + 29, ready=2),
        see(-HOUR + 30, ready=2),
    ) == [2, 2, 2, 2, 0]


def test_time_that_jumps_ahead_releases_nothing() -> None:
    scaler = Autoscaler(scaling())

    assert counts(
        scaler,
        see(0, running=8, ready=2),
        see(2, ready=2),
        see(6 * HOUR, ready=2),
        see(6 * HOUR + 57, ready=2),
        see(6 * HOUR + 58, ready=2),
    ) == [2, 2, 2, 2, 0]


def test_the_decision_explains_itself() -> None:
    scaler = Autoscaler(scaling(maxReplicas=2))

    decision = scaler.step(see(running=4, held=6, ready=1))

    assert [(step.name, step.value) for step in decision.steps] == [
        ("demand", 10),
        ("capacity", 4),
        ("needed", 3),
        ("maxReplicas", 2),
    ]
    assert decision.reason == "3 replicas are wanted, scaling.maxReplicas allows 2."
    assert decision.steps[2].why == ("4 running, 0 waiting, 6 held: 3 replicas at 4 requests each.")
