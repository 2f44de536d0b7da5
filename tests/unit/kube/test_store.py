"""The store's law: whatever the order of news, it never goes back and ends at the truth."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from glowplug.kube.store import Store


@dataclass(frozen=True, slots=True)
class Thing:
    namespace: str
    name: str
    uid: str
    resource_version: str

    def at(self, version: int) -> "Thing":
        return Thing(self.namespace, self.name, self.uid, str(version))


def thing(name: str, uid: str, version: int) -> Thing:
    return Thing("ns", name, uid, str(version))


def test_a_deletion_of_an_older_object_leaves_its_successor():
    store = Store[Thing]()
    store.put(thing("a", "second", 20))
    assert not store.delete(thing("a", "first", 15))
    assert store.get("ns", "a") == thing("a", "second", 20)


def test_late_news_of_a_deleted_object_does_not_raise_it():
    store = Store[Thing]()
    store.put(thing("a", "one", 10))
    store.delete(thing("a", "one", 12))
    assert not store.put(thing("a", "one", 11))
    assert store.all() == ()


def test_a_write_whose_answer_a_list_overtook_does_not_raise_what_is_gone():
    store = Store[Thing]()
    store.replace([thing("b", "two", 9)], 15)
    assert not store.put(thing("a", "created-at-10-gone-at-12", 10))
    assert [record.name for record in store.all()] == ["b"]
    assert store.put(thing("a", "created-at-16", 16))


def test_an_object_that_left_the_selector_may_come_back():
    store = Store[Thing]()
    store.put(thing("a", "one", 10))
    store.delete(thing("a", "one", 12))
    assert store.put(thing("a", "one", 13))


def test_a_successor_is_told_as_a_deletion_and_a_creation():
    told = []
    store = Store[Thing]()
    store.subscribe(lambda old, new: told.append((old and old.uid, new and new.uid)))
    store.put(thing("a", "one", 10))
    store.put(thing("a", "two", 20))
    assert told == [(None, "one"), ("one", None), (None, "two")]
    assert not store.put(thing("a", "one", 15))


def test_a_list_keeps_what_is_newer_than_itself():
    store = Store[Thing]()
    store.put(thing("older", "1", 10))
    store.put(thing("newer", "2", 31))
    store.replace([thing("listed", "3", 20)], 30)
    assert {t.name for t in store.all()} == {"newer", "listed"}


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[str, Thing]], list[int], int]:
    """A server's events in order, which past states echo back when, and where a relist falls."""
    alive: dict[str, Thing] = {}
    events: list[tuple[str, Thing]] = []
    for version in range(1, draw(st.integers(1, 25)) + 1):
        name = draw(st.sampled_from(["a", "b", "c"]))
        if name not in alive:
            alive[name] = Thing("ns", name, f"{name}{version}", str(version))
            events.append(("ADDED", alive[name]))
        elif draw(st.booleans()):
            alive[name] = alive[name].at(version)
            events.append(("MODIFIED", alive[name]))
        else:
            events.append(("DELETED", alive.pop(name).at(version)))
    echoes = draw(st.lists(st.integers(0, 10**6), min_size=len(events), max_size=len(events)))
    return events, echoes, draw(st.integers(0, len(events)))


def state_after(events: list[tuple[str, Thing]]) -> dict[str, Thing]:
    alive: dict[str, Thing] = {}
    for kind, obj in events:
        if kind == "DELETED":
            del alive[obj.name]
        else:
            alive[obj.name] = obj
    return alive


@given(histories())
def test_any_echo_of_the_past_and_any_relist_end_at_the_servers_state(history):
    events, echoes, relist = history
    store = Store[Thing](index=lambda t: [t.name])
    mirror: dict[str, Thing] = {}

    def follow(old: Thing | None, new: Thing | None) -> None:
        if old is not None:
            assert mirror.pop(old.name) == old
        if new is not None:
            assert old is None or int(new.resource_version) > int(old.resource_version)
            mirror[new.name] = new

    store.subscribe(follow)
    writes = [obj for kind, obj in events if kind != "DELETED"]
    for i, (kind, obj) in enumerate(events):
        # A write's response may arrive at any time: long ago, or before the watch tells of it.
        if writes:
            store.put(writes[echoes[i] % len(writes)])
        if i == relist:
            listed = state_after(events[:i])
            store.replace(listed.values(), i)
        if kind == "DELETED":
            store.delete(obj)
        else:
            store.put(obj)
    assert {t.name: t for t in store.all()} == state_after(events) == mirror
    for name in ("a", "b", "c"):
        assert [t.name for t in store.by_index(name)] == [name] * (name in mirror)
