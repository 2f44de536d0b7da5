"""Plans as tables: what is created, drained, taken back and deleted."""

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.act.plan import Load, Plan, Policy, classify, plan
from glowplug.api import meta
from glowplug.kube import ContainerRecord, PodRecord

NOW = 1_800_000_000.0


def container(name: str = "engine", **changes: object) -> ContainerRecord:
    record = ContainerRecord(
        name=name,
        running=True,
        started=True,
        ready=True,
        restart_count=0,
        waiting_reason=None,
        waiting_message=None,
        terminated_reason=None,
        exit_code=None,
        message=None,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def pod(
    slot: int = 0,
    *,
    revision: str = "new",
    state: str = "active",
    launcher: bool = True,
    draining_for: float | None = None,
    age: float = 100.0,
    unschedulable: str | None = None,
    **changes: object,
) -> PodRecord:
    annotations = {
        meta.ANNOTATION_REPLICAS: json.dumps(
            [
                {
                    "model": "m",
                    "process": 0,
                    "port": 8000,
                    "launcherPort": 9410 if launcher else None,
                }
            ]
        )
    }
    if draining_for is not None:
        state = "draining"
        annotations[meta.ANNOTATION_DRAINING_SINCE] = datetime.fromtimestamp(
            NOW - draining_for, UTC
        ).isoformat()
    record = PodRecord(
        uid=f"{revision}-{slot}",
        namespace="ns",
        name=f"m-{revision}-{slot}",
        resource_version="1",
        labels={
            meta.LABEL_MODEL: "m",
            meta.LABEL_REVISION: revision,
            meta.LABEL_SLOT: str(slot),
            meta.LABEL_STATE: state,
        },
        annotations=annotations,
        owner_uids=("owner",),
        node="node" if unschedulable is None else None,
        ip="198.18.0.9",
        phase="Running" if unschedulable is None else "Pending",
        created=NOW - age,
        deleting=False,
        scheduled=unschedulable is None,
        unschedulable=unschedulable,
        sandbox_ready=True,
        ready=unschedulable is None,
        containers=(container(),),
        init_containers=(),
    )
    return replace(record, **changes)  # type: ignore[arg-type]


IDLE = Load(known=True)


def planned(
    pods: list[PodRecord],
    wanted: int,
    policy: Policy | None = None,
    load: Load = IDLE,
    *,
    scarce: bool = False,
    may_create: bool = True,
    misplaced: Collection[str] = (),
) -> Plan:
    taken = frozenset(
        int(p.labels["glowplug.dev/slot"])
        for p in pods
        if p.labels["glowplug.dev/revision"] == "new"
    )
    return plan(
        classify(pods, "new"),
        wanted,
        policy or Policy(),
        revision="new",
        taken=taken,
        load=load,
        now=NOW,
        scarce=scarce,
        may_create=may_create,
        misplaced=misplaced,
    )


def names(pods: tuple[PodRecord, ...]) -> list[str]:
    return sorted(p.name for p in pods)


def test_from_zero_the_needed_number_at_once() -> None:
    assert planned([], 3) == Plan(create=(0, 1, 2))


def test_starting_replicas_count_as_supply() -> None:
    assert planned([pod(0, ready=False), pod(1, unschedulable="no GPU")], 2) == Plan()


def test_the_slot_of_a_terminating_pod_is_skipped() -> None:
    assert planned([pod(0, deleting=True), pod(2)], 3).create == (1, 3)


def test_an_ended_pod_is_deleted_and_its_slot_waits_for_that() -> None:
    made = planned([pod(0, phase="Failed", ready=False)], 1)
    assert names(made.delete) == ["m-new-0"]
    assert made.create == (1,)


@pytest.mark.parametrize(
    ("pods", "victims"),
    [
        ([pod(0), pod(1), pod(2, unschedulable="no GPU")], ["m-new-2"]),
        ([pod(0), pod(1, ready=False), pod(2)], ["m-new-1"]),
        ([pod(0, age=10), pod(1, age=500), pod(2, age=500)], ["m-new-0"]),
    ],
    ids=["without a node first", "then not ready", "then newest"],
)
def test_scale_down_order(pods: list[PodRecord], victims: list[str]) -> None:
    assert names(planned(pods, 2).drain) == victims


def test_the_least_loaded_replica_goes() -> None:
    load = Load(by_pod={"new-0": 5, "new-1": 1, "new-2": 9})
    assert names(planned([pod(0), pod(1), pod(2)], 2, load=load).drain) == ["m-new-1"]


@pytest.mark.parametrize(
    ("leaving", "load", "deleted"),
    [
        (pod(0, draining_for=1), IDLE, True),
        (pod(0, draining_for=1), Load({"new-0": 0}, known=True), False),
        (pod(0, draining_for=200), Load({"new-0": 2}, known=True), False),
        (pod(0, draining_for=301), Load({"new-0": 2}, known=True), True),
        (pod(0, draining_for=1), Load(), False),
        (pod(0, draining_for=4), Load(), True),
        (pod(0, draining_for=200, launcher=False), Load(), False),
        (pod(0, state="draining"), Load({"new-0": 2}, known=True), True),
        (pod(0, draining_for=1, ready=False), Load({"new-0": 2}, known=True), True),
    ],
    ids=[
        "no gateway sends to it",
        "a gateway has not seen the mark",
        "busy",
        "drainTimeout",
        "gateways silent, mark perhaps not seen",
        "gateways silent, its preStop waits",
        "gateways silent, no preStop to wait",
        "marked without a time",
        "serves nothing",
    ],
)
def test_when_a_draining_pod_is_deleted(leaving: PodRecord, load: Load, deleted: bool) -> None:
    assert bool(planned([leaving], 0, load=load).delete) is deleted


def test_pods_that_fail_at_once_are_given_time() -> None:
    ended = [pod(0, phase="Failed", ready=False)]
    patient = plan(
        classify(ended, "new"),
        2,
        Policy(),
        revision="new",
        taken=frozenset({0}),
        load=IDLE,
        now=NOW,
        replace_ended=False,
    )
    assert patient == Plan(create=(1,))


def test_a_draining_replica_is_taken_back_before_a_new_one_starts() -> None:
    made = planned([pod(0), pod(1, draining_for=1)], 3)
    assert names(made.reactivate) == ["m-new-1"]
    assert made.create == (2,)
    assert made.delete == ()


def test_a_draining_replica_of_an_old_revision_is_not_taken_back() -> None:
    made = planned([pod(0, revision="old", draining_for=1)], 1)
    assert made.reactivate == ()
    assert made.create == (0,)


class TestRollingUpdate:
    def test_surge_first(self) -> None:
        made = planned([pod(i, revision="old") for i in range(3)], 3)
        assert made == Plan(create=(0,))

    def test_an_old_one_goes_when_the_new_one_serves(self) -> None:
        made = planned([pod(i, revision="old") for i in range(3)] + [pod(0)], 3)
        assert len(made.drain) == 1
        assert made.drain[0].labels["glowplug.dev/revision"] == "old"

    def test_a_new_one_that_never_serves_takes_nothing_away(self) -> None:
        made = planned([pod(i, revision="old") for i in range(3)] + [pod(0, ready=False)], 3)
        assert made == Plan()

    def test_max_unavailable_goes_without_surge(self) -> None:
        old = [pod(i, revision="old") for i in range(3)]
        made = planned(old, 3, Policy(max_surge=0, max_unavailable=1))
        assert (len(made.drain), made.create) == (1, ())

    def test_to_zero_in_the_middle(self) -> None:
        made = planned([pod(0, revision="old"), pod(0, ready=False)], 0)
        assert names(made.drain) == ["m-new-0", "m-old-0"]

    def test_a_surge_pod_without_a_node_waits_a_minute(self) -> None:
        old = [pod(0, revision="old"), pod(1, revision="old")]
        early = planned([*old, pod(0, unschedulable="no GPU", age=59)], 2)
        assert (early.surge_blocked, early.drain) == (None, ())
        late = planned([*old, pod(0, unschedulable="no GPU", age=61)], 2)
        assert late.surge_blocked is not None
        assert len(late.drain) == 1

    def test_a_scarce_rollout_does_not_wait_again(self) -> None:
        old = [pod(0, revision="old"), pod(1, revision="old")]
        made = planned([*old, pod(0, unschedulable="no GPU", age=5)], 2, scarce=True)
        assert len(made.drain) == 1

    def test_a_refused_template_leaves_the_old_ones_serving(self) -> None:
        old = [pod(0, revision="old"), pod(1, revision="old")]
        assert planned(old, 2, may_create=False) == Plan()
        assert len(planned(old, 1, may_create=False).drain) == 1


class TestMisplaced:
    def test_one_is_made_anew_under_another_name(self) -> None:
        waiting = pod(0, unschedulable="no GPU")
        made = planned([waiting, pod(1)], 2, misplaced={waiting.uid})
        assert (made.create, names(made.delete), made.drain) == ((2,), ["m-new-0"], ())

    def test_one_that_is_not_wanted_any_more_is_only_deleted(self) -> None:
        waiting = pod(0, unschedulable="no GPU")
        made = planned([waiting, pod(1)], 1, misplaced={waiting.uid})
        assert (made.create, names(made.delete), made.drain) == ((), ["m-new-0"], ())

    def test_none_goes_while_no_other_may_come(self) -> None:
        waiting = pod(0, unschedulable="no GPU")
        assert planned([waiting], 1, may_create=False, misplaced={waiting.uid}) == Plan()


pods_of_a_model = st.lists(
    st.builds(
        lambda revision, ready, age: (revision, ready, age),
        st.sampled_from(["old", "new"]),
        st.booleans(),
        st.integers(0, 600),
    ),
    max_size=8,
)
policies = st.builds(Policy, max_surge=st.integers(0, 3), max_unavailable=st.integers(0, 3)).filter(
    lambda policy: policy.max_surge + policy.max_unavailable > 0
)


def build(shapes: list[tuple[str, bool, int]]) -> list[PodRecord]:
    return [
        pod(slot, revision=revision, ready=ready, age=age)
        for slot, (revision, ready, age) in enumerate(shapes)
    ]


@given(pods_of_a_model, st.integers(0, 6), policies)
def test_availability_and_surge_are_respected(
    shapes: list[tuple[str, bool, int]], wanted: int, policy: Policy
) -> None:
    pods = build(shapes)
    made = planned(pods, wanted, policy)
    gone = {p.uid for p in made.drain}
    serving_before = sum(p.ready for p in pods)
    serving_after = sum(p.ready for p in pods if p.uid not in gone)
    assert serving_after >= min(serving_before, wanted - policy.max_unavailable)
    if made.create:
        assert len(pods) + len(made.create) <= wanted + policy.max_surge


@given(pods_of_a_model, st.integers(0, 6), policies)
def test_every_start_ends_with_the_wanted_replicas_of_the_new_revision(
    shapes: list[tuple[str, bool, int]], wanted: int, policy: Policy
) -> None:
    pods = build(shapes)
    for _ in range(60):
        made = planned(pods, wanted, policy)
        gone = {p.uid for p in made.drain + made.delete}
        pods = [replace(p, ready=True) for p in pods if p.uid not in gone]
        pods += [pod(slot, ready=False) for slot in made.create]
    assert not planned(pods, wanted, policy)
    assert [p.labels["glowplug.dev/revision"] for p in pods] == ["new"] * wanted
