"""WatchCache under faults: cuts, expiry, silence, reordering, bad objects."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from glowplug.kube import CONFIGMAPS, Client, WatchCache

from .conftest import FaultyApi, config_map, event


@dataclass(frozen=True, slots=True)
class Trimmed:
    namespace: str
    name: str
    uid: str
    resource_version: str
    value: str


def trim(obj: dict) -> Trimmed:
    meta = obj["metadata"]
    return Trimmed(
        meta["namespace"], meta["name"], meta["uid"], meta["resourceVersion"], obj["data"]["v"]
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def cache(api: FaultyApi, client: Client) -> AsyncIterator[WatchCache[Trimmed]]:
    made = WatchCache(client, CONFIGMAPS, trim, index=lambda t: [t.value], silence=0.3)
    task = asyncio.create_task(made.run())
    yield made
    assert not task.done(), "run() must outlive every fault"
    task.cancel()


def values(cache: WatchCache[Trimmed]) -> dict[str, str]:
    return {record.name: record.value for record in cache.all()}


async def test_lists_page_by_page_then_follows_the_watch(api, cache):
    api.objects = [config_map(f"m{i}", 10 + i, v="a") for i in range(5)]
    api.watches = [
        [
            event("MODIFIED", config_map("m0", 101, v="b")),
            event("DELETED", config_map("m1", 102, v="a")),
            event("ADDED", config_map("m9", 103, v="b")),
        ]
    ]
    await cache.synced()
    await until(lambda: "m9" in values(cache))
    assert values(cache) == {"m0": "b", "m2": "a", "m3": "a", "m4": "a", "m9": "b"}
    assert {record.name for record in cache.by_index("b")} == {"m0", "m9"}
    assert len(api.asked("GET")) == 3
    assert api.asked("WATCH")[0]["resourceVersion"] == "100"


async def test_a_cut_in_the_middle_of_a_line_resumes_after_the_last_whole_event(api, cache):
    half = event("MODIFIED", config_map("m", 102, v="half"))[:60]
    api.watches = [
        [event("ADDED", config_map("m", 101, v="whole")), half, "cut"],
        [event("MODIFIED", config_map("m", 102, v="second"))],
    ]
    await until(lambda: values(cache) == {"m": "second"})
    assert [query["resourceVersion"] for query in api.asked("WATCH")] == ["100", "101"]
    assert len(api.asked("GET")) == 1, "a cut must not cause a list"


async def test_a_bookmark_moves_the_place_to_resume_from(api, cache):
    bookmark = {"kind": "ConfigMap", "metadata": {"resourceVersion": "150"}}
    api.watches = [[event("BOOKMARK", bookmark), "end"]]
    await until(lambda: len(api.asked("WATCH")) == 2)
    assert api.asked("WATCH")[1]["resourceVersion"] == "150"


@pytest.mark.parametrize(
    "expired",
    [
        pytest.param(410, id="status"),
        pytest.param(
            [event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})], id="event"
        ),
    ],
)
async def test_an_expired_watch_lists_again_and_tells_of_what_vanished(api, cache, expired):
    api.objects = [config_map("gone", 11, v="a"), config_map("stays", 12, v="a")]
    told = []
    cache.subscribe(lambda old, new: told.append((old and old.name, new and new.name)))
    await until(lambda: len(api.asked("WATCH")) == 1)
    api.objects = [config_map("stays", 12, v="a"), config_map("new", 190, v="a")]
    api.version = 200
    api.watches = [expired]
    await until(lambda: values(cache) == {"stays": "a", "new": "a"})
    assert told == [(None, "gone"), (None, "stays"), (None, "new"), ("gone", None)]


async def test_a_silent_watch_is_taken_for_dead_and_resumed(api, cache):
    api.watches = [
        [event("ADDED", config_map("m", 101, v="a"))],  # then silence
        [event("MODIFIED", config_map("m", 102, v="b"))],
    ]
    await until(lambda: values(cache) == {"m": "b"})
    assert api.asked("WATCH")[1]["resourceVersion"] == "101"


async def test_a_watch_that_keeps_failing_lists_again(api, cache):
    api.watches = [500, 500, 500, [event("ADDED", config_map("m", 201, v="a"))]]
    await until(lambda: values(cache) == {"m": "a"})
    assert len(api.asked("GET")) == 2


async def test_a_list_that_fails_is_tried_again(api, client):
    api.failures = [500] * 5 + [403]
    api.objects = [config_map("m", 11, v="a")]
    cache = WatchCache(client, CONFIGMAPS, trim)
    task = asyncio.create_task(cache.run())
    await until(lambda: cache.is_synced)
    assert values(cache) == {"m": "a"}
    task.cancel()


async def test_own_writes_are_seen_at_once_and_late_news_does_not_undo_them(api, cache):
    await cache.synced()
    cache.upsert(config_map("m", 120, v="mine"))
    assert values(cache) == {"m": "mine"}
    assert cache.get("default", "m").resource_version == "120"
    cache.upsert(config_map("m", 110, v="older"))
    assert values(cache) == {"m": "mine"}
    api.watches = [
        [
            event("ADDED", config_map("m", 110, v="late")),
            event("ADDED", config_map("last", 121, v="a")),
        ]
    ]
    await until(lambda: "last" in values(cache))
    assert values(cache)["m"] == "mine"


async def test_history_that_went_back_starts_afresh(api, cache):
    api.objects = [config_map("m", 90, v="before the backup was restored")]
    await cache.synced()
    api.objects = [config_map("m", 7, v="restored")]
    api.version = 8
    api.watches = [410]
    await until(lambda: values(cache) == {"m": "restored"})


async def test_an_unreadable_object_does_not_keep_the_others_out(api, cache, caplog):
    bad = config_map("bad", 12)
    api.objects = [config_map("good", 11, v="a"), bad]
    await cache.synced()
    assert values(cache) == {"good": "a"}
    assert "default/bad" in caplog.text


async def test_a_failing_subscriber_does_not_stop_the_cache(api, cache):
    seen = []

    def broken(old, new):
        raise RuntimeError("subscriber")

    cache.subscribe(broken)
    cache.subscribe(lambda old, new: seen.append(new.name))
    api.objects = [config_map("m", 11, v="a")]
    await until(lambda: seen == ["m"])


async def test_removed_by_hand_only_if_it_is_still_that_object(api, cache):
    api.objects = [config_map("m", 11, uid="one", v="a")]
    await cache.synced()
    cache.remove("default", "m", "other")
    assert values(cache) == {"m": "a"}
    cache.remove("default", "m", "one")
    assert values(cache) == {}
