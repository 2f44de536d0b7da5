"""The cache's pure parts: the byte budget, who loads which chunk, ranges, signatures."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from glowplug_snapshotter.cache.auth import Key
from glowplug_snapshotter.cache.choice import STORE, Choice, Sight, choose, orders_of
from glowplug_snapshotter.cache.metrics import Counters, Gauges, render
from glowplug_snapshotter.cache.ranges import asked_range, matches
from glowplug_snapshotter.cache.shelf import Place, Shelf
from glowplug_snapshotter.cache.throttle import Bucket

BUDGET = 100
NAMES = st.sampled_from("abcdefgh")


class AShelfInUse(RuleBasedStateMachine):
    """Any sequence of reservations, uses and pins, beside a model of what must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf(BUDGET)
        self.now = 0.0
        self.sizes: dict[str, int] = {}
        self.used: dict[str, float] = {}
        self.pins: dict[str, float] = {}
        self.uses: list[tuple[str, Place]] = []

    def movable(self, name: str) -> bool:
        in_use = any(user == name for user, _ in self.uses)
        return not in_use and self.pins.get(name, 0.0) <= self.now

    @rule(name=NAMES, size=st.integers(0, 130))
    def reserve(self, name: str, size: int) -> None:
        known = name in self.sizes
        before = dict(self.sizes)
        leaving = self.shelf.reserve(name, size, self.now)
        if known:
            assert leaving == ()
            return
        stay = sum(n for one, n in before.items() if not self.movable(one))
        if leaving is None:
            assert stay + size > BUDGET, "it would have fitted"
            return
        assert all(self.movable(one) for one in leaving)
        kept = [one for one in before if one not in leaving and self.movable(one)]
        assert all(self.used[a] <= self.used[b] for a in leaving for b in kept)
        for one in leaving:
            del self.sizes[one], self.used[one]
            self.pins.pop(one, None)
        self.sizes[name] = size
        self.used[name] = self.now

    @precondition(lambda self: self.sizes)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.sizes)))
        place = self.shelf.place(name)
        self.shelf.use(place, self.now)
        self.uses.append((name, place))
        self.used[name] = self.now

    @precondition(lambda self: self.uses)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.uses) - 1))
        self.shelf.done(self.uses.pop(number)[1])

    @rule(name=NAMES, seconds=st.floats(0, 50))
    def pin(self, name: str, seconds: float) -> None:
        self.shelf.pin(name, self.now + seconds)
        if name in self.sizes:
            self.pins[name] = max(self.pins.get(name, 0.0), self.now + seconds)

    @rule(seconds=st.floats(0.1, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def what_is_there_is_counted_and_fits(self) -> None:
        assert set(self.shelf.names()) == set(self.sizes)
        assert self.shelf.bytes == sum(self.sizes.values()) <= BUDGET


TestAShelfInUse = AShelfInUse.TestCase


def test_a_budget_that_shrank_is_kept_as_far_as_it_may() -> None:
    shelf = Shelf(10)
    for number, name in enumerate("abc"):
        shelf.put(name, 6, float(number))
    shelf.use(shelf.place("a"), 3.0)
    assert shelf.trim(4.0) == ("b", "c")
    assert shelf.bytes == 6


NODES = st.sets(st.integers(1, 60).map("198.18.0.{}:9421".format), min_size=1, max_size=12)


@given(nodes=NODES, chunks=st.integers(0, 100))
def test_every_chunk_has_one_home_and_no_node_more_than_its_share(
    nodes: set[str], chunks: int
) -> None:
    orders = orders_of("blob", chunks, sorted(nodes))
    assert orders == orders_of("blob", chunks, sorted(nodes, reverse=True)), "all agree"
    assert all(sorted(order) == sorted(nodes) for order in orders)
    homes = Counter(order[0] for order in orders)
    assert max(homes.values(), default=0) <= -(-chunks // len(nodes))


def test_a_newcomer_moves_few_homes() -> None:
    nodes = [f"node{n}" for n in range(9)]
    before = orders_of("blob", 360, nodes[:8])
    after = orders_of("blob", 360, nodes)
    moved = sum(a[0] != b[0] for a, b in zip(before, after, strict=True))
    assert moved < 360 / 2, "40 must move; round robin would move 320"


def sight(**changes: object) -> Sight:
    """Node b of two, four chunks missing: 0 and 1 are a's, 2 and 3 its own."""
    order = [("a", "b"), ("a", "b"), ("b", "a"), ("b", "a")]
    told = {
        "me": "b",
        "missing": [0, 1, 2, 3],
        "order": order.__getitem__,
        "holders": {},
        "coming": (),
        "overdue": lambda chunk: 0.0,
    }
    return Sight(**(told | changes))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, Choice(2, STORE)),
        ({"missing": [0, 1]}, None),
        ({"missing": [0, 1], "holders": {"a": [1]}}, Choice(1, "a")),
        ({"holders": {"a": [2]}}, Choice(2, "a")),
        ({"coming": [2, 3]}, None),
        ({"store": False}, None),
        ({"missing": [0, 1], "overdue": lambda chunk: 1.5}, Choice(0, STORE)),
        ({"missing": [2], "coming": [2], "overdue": lambda chunk: 1.5}, Choice(2, STORE)),
        ({"missing": [0], "overdue": lambda chunk: 1.5, "store": False}, None),
    ],
    ids=[
        "its own chunk comes from the store",
        "another's chunk is waited for",
        "and taken from who has it",
        "a peer is asked before the store, for its own too",
        "what a peer already loads is not loaded twice",
        "the store's connections are taken",
        "a home that had its time loses the chunk",
        "so does a peer that loads for ever",
        "but not while the store cannot be asked",
    ],
)
def test_the_next_fetch(told: dict, expected: Choice | None) -> None:
    assert choose(sight(**told)) == expected


def test_a_window_that_readers_wait_for_comes_first() -> None:
    far = sight(missing=[3, 40], order=lambda chunk: ("b", "a"), first={1})
    assert choose(far) == Choice(40, STORE)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-", (10, 100)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-5", (95, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=-0", None),
        ("bytes=100-", None),
        ("bytes=5-4", None),
        ("bytes=0-1,5-6", (0, 100)),
        ("items=0-1", (0, 100)),
        ("bytes=-", (0, 100)),
    ],
)
def test_a_range_is_read_as_the_standard_says(
    header: str | None, expected: tuple[int, int] | None
) -> None:
    assert asked_range(header, 100) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, True), ("*", True), ('"a"', True), ('"b" , "a"', True), ('"b"', False), ("a", False)],
)
def test_if_match(header: str | None, expected: bool) -> None:
    assert matches(header, '"a"') is expected


@given(text=st.text(max_size=40), method=st.sampled_from(["GET", "POST"]))
def test_no_target_but_a_signed_one_is_admitted(text: str, method: str) -> None:
    key = Key(b"0123456789abcdef")
    assert not key.admits(method, f"/{text}", 1000.0)
    signed = key.sign("GET", "/blobs/x?from=me", 1000.0)
    assert key.admits("GET", signed, 1059.0)
    assert not key.admits("GET", signed + text, 1000.0) or not text
    assert not key.admits("GET", signed, 1061.0)


async def test_bandwidth_is_what_was_given() -> None:
    now = 0.0
    bucket = Bucket(1000, lambda: now)
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asyncio.sleep", sleep)
        for _ in range(10):
            await bucket.take(500)
    assert waits[-1] == pytest.approx(5.0, abs=0.3), "5000 bytes at 1000 bytes/s"


def test_metrics_md_tells_of_all_that_is_exposed() -> None:
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    section = text.split("\n## Node cache\n", 1)[1].split("\n## ", 1)[0]
    told = re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE)
    exposed = render(Counters(), Gauges(0, 0, 0, 0, 0, 0))
    assert told == re.findall(r"^# TYPE (\w+) (\w+)$", exposed, re.MULTILINE)
