"""Balancing and holding without sockets: invariants under any order of events."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowplug.gateway.directory import Directory
from glowplug.gateway.model import EngineState, ServedModel
from glowplug.gateway.refusal import Refusal
from glowplug.gateway.traffic import Held, ModelTraffic

from .bench import MODEL, REPLICA

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "finish", "fail", "leave", "ready", "lost", "drain"]),
        st.integers(0, 7),
    ),
    min_size=30,  # short runs meet few of the states
    max_size=80,
)


@given(events=EVENTS, slots=st.integers(1, 4), max_held=st.integers(0, 6))
@settings(max_examples=200)
def test_nothing_is_lost_whatever_happens(
    events: list[tuple[str, int]], slots: int, max_held: int
) -> None:
    asyncio.run(_play(events, slots, max_held))


async def _play(events: list[tuple[str, int]], slots: int, max_held: int) -> None:
    traffic = ModelTraffic("ns/smol", asyncio.get_running_loop().time, lambda *_: None)
    traffic.model = replace(MODEL, slots=slots, max_held=max_held)
    engines = [EngineState(replace(REPLICA, pod_uid=f"p{i}"), "image") for i in range(3)]
    traffic.engines = {engine.replica.key: engine for engine in engines}
    waiting: list[Held] = []
    running: list[EngineState] = []
    taken = over = left = 0

    for event, which in events:
        engine = engines[which % 3]
        if event == "arrive":
            placed = traffic.take()
            assert placed is None or not waiting, "nobody overtakes those who wait"
            if placed is not None:
                assert placed.usable
                running.append(placed)
                taken += 1
            else:
                try:
                    waiting.append(traffic.hold())
                    taken += 1
                except Refusal:
                    assert traffic.held >= max_held
        elif event == "finish" and running:
            traffic.give_back(running.pop(which % len(running)))
            over += 1
        elif event == "fail" and running:
            failed = running.pop(which % len(running))
            failed.trusted = False
            again = traffic.take(failed)
            if again is None:
                waiting.append(traffic.hold(failed))
            else:
                running.append(again)
            traffic.give_back(failed)
        elif event == "leave" and waiting:
            traffic.leave(waiting.pop(which % len(waiting)))
            left += 1
        elif event == "ready":
            engine.ready = engine.trusted = True
            traffic.release()
        elif event == "lost":
            engine.ready = False
        elif event == "drain":
            engine.replica = replace(engine.replica, draining=not engine.replica.draining)
            traffic.release()

        for held in [held for held in waiting if held.granted.done()]:
            waiting.remove(held)
            running.append(held.granted.result())
        assert traffic.held == len(waiting)
        assert traffic.in_flight == len(running)
        assert traffic.totals.arrivals == taken == over + left + len(running) + len(waiting)
        assert not waiting or all(e.in_flight >= slots for e in engines if e.usable)


@pytest.mark.parametrize(("load", "chosen"), [((0, 0), 0), ((1, 0), 1), ((0, 1), 0), ((3, 2), 1)])
async def test_the_least_loaded_replica_is_taken(load: tuple[int, int], chosen: int) -> None:
    traffic = ModelTraffic("ns/smol", lambda: 1.0, lambda *_: None)
    engines = [EngineState(replace(REPLICA, pod_uid=f"p{i}"), "route") for i in range(2)]
    for engine, in_flight in zip(engines, load, strict=True):
        engine.ready, engine.in_flight = True, in_flight
    traffic.engines = {engine.replica.key: engine for engine in engines}
    assert traffic.take() is engines[chosen]


def named(name: str, served: str, namespace: str = "ns") -> ServedModel:
    return replace(MODEL, namespace=namespace, name=name, served_name=served)


def test_names_resolve_to_one_model_or_say_why_not() -> None:
    directory = Directory()
    for model in (named("a", "llama"), named("b", "same"), named("b", "same", "other")):
        directory.put(model)
    assert directory.resolve("llama").key == "ns/a"
    assert directory.resolve("ns/b").key == "ns/b"
    with pytest.raises(Refusal, match="'ns/b' or 'other/b'"):
        directory.resolve("same")
    directory.remove("other/b")
    assert directory.resolve("same").key == "ns/b"
    directory.put(named("b", "renamed"))
    with pytest.raises(Refusal, match="does not exist"):
        directory.resolve("same")


def test_a_served_name_cannot_take_anothers_key() -> None:
    directory = Directory()
    directory.put(named("thief", "ns/victim", "other"))
    directory.put(named("victim", "v"))
    assert directory.resolve("ns/victim").key == "ns/victim"
    thief = directory.get("other/thief")
    assert thief is not None
    assert directory.public_name(thief) == "other/thief"


async def test_the_oldest_wait_is_known_while_it_lasts() -> None:
    now = 100.0
    traffic = ModelTraffic("ns/smol", lambda: now, lambda *_: None)
    traffic.model = MODEL
    assert traffic.longest_held == 0
    first = traffic.hold()
    now = 107.0
    traffic.hold()
    now = 110.0
    assert traffic.longest_held == 10
    traffic.leave(first)
    assert traffic.longest_held == 3
