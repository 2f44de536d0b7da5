"""The ladder: the rung of a new replica, and who leaves a rung that has no node for it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.api import GPUPool, meta, parse
from glowplug.control.ladder import AGAIN_S, PATIENCE_S, Ladders, climb, place
from glowplug.kube import PodRecord

NOW = 1_800_000_000.0
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


def pool(**spec: Any) -> GPUPool:
    body = {"metadata": {"name": "p"}, "spec": {"backend": "static", **spec}}
    return parse(GPUPool, body)


def rungs(*limits: int | None) -> GPUPool:
    """A ladder of the rungs a, b, c with these bounds."""
    ladder = [
        {"name": name, "dollarsPerGPUHour": 1} | ({} if limit is None else {"max": limit})
        for name, limit in zip("abc", limits, strict=False)
    ]
    return pool(ladder=ladder)


def pod(
    name: str,
    rung: str,
    *,
    waits: float | None = None,
    gpus: int = 1,
    owner: str | None = None,
    state: str = "active",
    deleting: bool = False,
) -> PodRecord:
    """A replica on a rung, without a node for `waits` seconds, or with one."""
    return PodRecord(
        uid=name,
        namespace="ns",
        name=name,
        resource_version="1",
        labels={meta.LABEL_STATE: state},
        annotations={
            "glowplug.dev/pool": "p",
            "glowplug.dev/rung": rung,
            "glowplug.dev/gpus": json.dumps(gpus),
        },
        owner_uids=(owner or f"model-of-{name}",),
        node="n" if waits is None else None,
        ip=None,
        phase="Pending",
        created=NOW - (waits or 0.0),
        deleting=deleting,
        scheduled=waits is None,
        unschedulable=None if waits is None else NO_GPU,
        sandbox_ready=False,
        ready=False,
        containers=(),
        init_containers=(),
    )


LADDER = [
    {"name": "reserved", "dollarsPerGPUHour": 1, "max": 4, "nodeSelector": {"r": "1"}},
    {"name": "spot", "dollarsPerGPUHour": 0.5, "max": 2},
]


@pytest.mark.parametrize(
    ("used", "gpus", "rung"),
    [
        ({}, 1, "reserved"),
        ({"reserved": 3}, 1, "reserved"),
        ({"reserved": 3}, 2, "spot"),
        ({"reserved": 4, "spot": 1}, 1, "spot"),
        ({"reserved": 4, "spot": 2}, 1, None),
    ],
)
def test_rungs_in_order(used: dict[str, int], gpus: int, rung: str | None) -> None:
    placement = place(pool(ladder=LADDER, nodeSelector={"pool": "x"}), gpus, used)
    assert (placement.rung if placement else None) == rung
    if rung == "reserved":
        assert placement is not None
        assert placement.node_selector == {"pool": "x", "r": "1"}


def test_a_pool_without_a_ladder_has_room() -> None:
    placement = place(pool(tolerations=[{"key": "gpu", "operator": "Exists"}]), 1, {})
    assert placement is not None
    assert (placement.rung, placement.tolerations) == (
        None,
        ({"key": "gpu", "operator": "Exists"},),
    )


@pytest.mark.parametrize(
    ("used", "failed", "rung"),
    [
        ({}, {"a"}, "b"),
        ({"b": 1}, {"a"}, "c"),
        ({}, {"a", "b", "c"}, "a"),
        ({"a": 1}, {"a", "b", "c"}, "b"),
        ({"a": 1, "b": 1, "c": 1}, set(), None),
    ],
    ids=["next one", "next one with room", "all failed: the first", "the first with room", "full"],
)
def test_a_rung_that_failed_comes_last(
    used: dict[str, int], failed: set[str], rung: str | None
) -> None:
    placement = place(rungs(1, 1, 1), 1, used, failed)
    assert (placement.rung if placement else None) == rung


LONG = PATIENCE_S


@pytest.mark.parametrize(
    ("ladder", "pods", "failed", "moves"),
    [
        (rungs(None, None), [pod("x", "a", waits=LONG)], {}, {"x": "b"}),
        (rungs(None, None), [pod("x", "a", waits=LONG - 1)], {}, {}),
        (rungs(None, None), [pod("x", "a")], {}, {}),
        (rungs(None), [pod("x", "a", waits=LONG)], {}, {}),
        (pool(), [pod("x", "", waits=LONG)], {}, {}),
        (rungs(None, 0), [pod("x", "a", waits=LONG)], {}, {}),
        (rungs(None, 1, 1), [pod("x", "a", waits=LONG, gpus=2)], {}, {}),
        (rungs(None, 1, None), [pod("x", "a", waits=LONG), pod("y", "b")], {}, {"x": "c"}),
        (rungs(None, None), [pod("x", "b", waits=LONG)], {"x": {"a"}}, {"x": "a"}),
        (rungs(None, None), [pod("x", "a", waits=LONG)], {"x": {"b"}}, {}),
        (rungs(1, None), [pod("x", "b", waits=LONG), pod("y", "a")], {"x": {"a"}}, {}),
        (rungs(None, None), [pod("x", "gone", waits=LONG)], {}, {"x": "a"}),
        (rungs(None, None), [pod("x", "a", waits=LONG, state="draining")], {}, {}),
        (rungs(None, None), [pod("x", "a", waits=LONG, deleting=True)], {}, {}),
        (
            rungs(None, 1),
            [pod("x", "a", waits=LONG), pod("y", "a", waits=LONG + 9), pod("z", "a", waits=LONG)],
            {},
            {"y": "b"},
        ),
        (
            rungs(None, 1),
            [pod("x", "a", waits=LONG), pod("y", "a", waits=LONG + 9)],
            {"y": {"b"}},
            {"x": "b"},
        ),
        (
            rungs(1, 1),
            [pod("x", "a", waits=LONG + 9), pod("y", "a", waits=LONG)],
            {},
            {"x": "b"},
        ),
    ],
    ids=[
        "the next rung",
        "not yet",
        "not who has a node",
        "one rung only",
        "no ladder",
        "the next rung is closed",
        "no rung has room for so many GPUs",
        "over a full rung",
        "all failed: back to the first",
        "all failed, on the first: stays",
        "all failed, the first full: stays",
        "its rung is not in the ladder any more",
        "draining",
        "being deleted",
        "room for one: who waits longest",
        "room for one, which failed the older one before",
        "the place that the older one leaves is not the younger one's",
    ],
)
def test_who_climbs(
    ladder: GPUPool, pods: list[PodRecord], failed: dict[str, set[str]], moves: dict[str, str]
) -> None:
    found = climb(ladder, pods, lambda p: failed.get(p.uid, set()) | {p.annotations[RUNG]}, NOW)
    assert {uid: placement.rung for uid, placement in found.to.items()} == moves


RUNG = "glowplug.dev/rung"


@given(
    limits=st.lists(st.none() | st.integers(0, 4), min_size=1, max_size=3),
    replicas=st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | st.floats(0, 100), st.integers(1, 2)),
        max_size=8,
    ),
    failed=st.sets(st.sampled_from("abc")),
)
def test_climbing_fills_no_rung_beyond_its_bound(limits, replicas, failed) -> None:
    ladder = rungs(*limits)
    pods = [
        pod(f"m{i}", rung, waits=waits, gpus=gpus) for i, (rung, waits, gpus) in enumerate(replicas)
    ]
    before = climb(ladder, pods, lambda p: failed, NOW - 1000).used
    found = climb(ladder, pods, lambda p: failed | {p.annotations[RUNG]}, NOW)
    for rung in ladder.spec.ladder:
        bound = rung.max if rung.max is not None else float("inf")
        assert found.used[rung.name] <= max(bound, before[rung.name])
    assert sum(found.used.values()) == sum(p[2] for p in replicas)


def test_a_model_goes_up_the_ladder_and_round_no_circle() -> None:
    """One replica that no rung has a node for, looked at every two seconds for ten minutes."""
    ladder, ladders = rungs(None, None, None), Ladders()
    rung, created, route = "a", NOW, ["a"]
    for second in range(0, int(2 * AGAIN_S), 2):
        now = NOW + second
        waiting = pod("x", rung, waits=NOW - created)
        found = ladders.climb(ladder, [waiting], now).to
        if found:
            rung, created = found["x"].rung or "", now
            route.append(rung)
    assert route == ["a", "b", "c", "a", "b", "c", "a"]


def test_a_rung_that_failed_one_model_is_open_to_another() -> None:
    ladder, ladders = rungs(None, None), Ladders()
    ladders.climb(ladder, [pod("x", "a", waits=LONG, owner="m"), pod("y", "a", owner="n")], NOW)
    assert ladders.failed("m", "p", NOW) == {"a": NO_GPU}
    assert ladders.failed("n", "p", NOW) == {}
    assert ladders.failed("m", "elsewhere", NOW) == {}
    assert ladders.failed("m", "p", NOW + AGAIN_S) == {}
    ladders.forget("m")
    assert ladders.failed("m", "p", NOW) == {}
