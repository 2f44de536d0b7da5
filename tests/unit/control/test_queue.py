"""The keyed queue: each key once, never twice at the same time, failing keys later and later."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowplug.control.queue import Backoff, KeyedQueue, work

from .conftest import Clock


@pytest.fixture
def queue(clock: Clock) -> KeyedQueue[str]:
    return KeyedQueue(clock=clock, backoff=Backoff(base=1.0, cap=8.0), chance=lambda: 0.0)


async def nothing_due(queue: KeyedQueue[str]) -> bool:
    try:
        await asyncio.wait_for(queue.get(), 0.01)
    except TimeoutError:
        return True
    return False


async def test_a_key_added_twice_is_worked_on_once(queue: KeyedQueue[str]) -> None:
    queue.add("a")
    queue.add("a")
    assert (await queue.get())[0] == "a"
    queue.done("a")
    assert await nothing_due(queue)


async def test_a_key_in_work_waits_for_its_end(queue: KeyedQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.add("a")
    assert await nothing_due(queue)
    queue.done("a")
    assert (await queue.get())[0] == "a"


async def test_the_earlier_of_two_times_wins(queue: KeyedQueue[str], clock: Clock) -> None:
    queue.add("a", after=10)
    queue.add("a", after=2)
    queue.add("a", after=5)
    clock.now += 2
    assert (await queue.get())[0] == "a"
    queue.done("a")
    clock.now += 20
    assert await nothing_due(queue), "the times that lost must not come back"


async def test_it_is_busy_while_a_due_key_waits_for_a_worker(
    queue: KeyedQueue[str], clock: Clock
) -> None:
    queue.add("a")
    assert queue.is_busy()
    await queue.get()
    queue.add("b", after=1.0)
    assert not queue.is_busy()
    clock.now += 1
    assert queue.is_busy()


async def test_requeue_after_and_wake_up(queue: KeyedQueue[str], clock: Clock) -> None:
    queue.add("a")
    await queue.get()
    queue.done("a", again=2.0)
    assert await nothing_due(queue)
    queue.add("a")
    assert (await queue.get())[0] == "a", "a wake-up does not wait for the timer"


async def test_a_getter_wakes_on_add(queue: KeyedQueue[str]) -> None:
    getting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert (await asyncio.wait_for(getting, 60))[0] == "a"


async def test_a_failing_key_backs_off_whatever_wakes_it(
    queue: KeyedQueue[str], clock: Clock
) -> None:
    delays = []
    for _ in range(5):
        queue.add("a")
        await queue.get()
        delays.append(queue.failed("a"))
        queue.add("a")
        assert await nothing_due(queue)
        clock.now += delays[-1]
    assert delays == [1.0, 2.0, 4.0, 8.0, 8.0]


async def test_a_changed_object_is_tried_at_once(queue: KeyedQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.failed("a")
    queue.forgive("a")
    queue.add("a")
    assert (await queue.get())[0] == "a"
    assert queue.failed("a") == 1.0


async def test_success_ends_the_backoff(queue: KeyedQueue[str], clock: Clock) -> None:
    queue.add("a")
    await queue.get()
    clock.now += queue.failed("a")
    await queue.get()
    queue.done("a")
    queue.add("a")
    await queue.get()
    assert queue.failed("a") == 1.0


async def test_depth_and_age(queue: KeyedQueue[str], clock: Clock) -> None:
    queue.add("a")
    queue.add("b", after=100)
    clock.now += 3
    assert (queue.depth(), queue.age()) == (1, 3.0)
    key, waited = await queue.get()
    assert (key, waited) == ("a", 3.0)
    assert (queue.depth(), queue.age()) == (0, 0.0)


async def test_one_failing_key_does_not_stop_the_others() -> None:
    queue: KeyedQueue[str] = KeyedQueue(backoff=Backoff(base=0.001, cap=0.001))
    running: set[str] = set()
    seen: dict[str, int] = {"good": 0, "bad": 0}

    async def handle(key: str) -> float | None:
        assert key not in running
        running.add(key)
        await asyncio.sleep(0.001)
        running.discard(key)
        seen[key] += 1
        if key == "bad":
            raise RuntimeError("always")
        return 0.001

    queue.add("bad")
    queue.add("good")
    working = asyncio.create_task(work(queue, handle, workers=3))
    async with asyncio.timeout(60):
        while seen["good"] <= 5 or seen["bad"] <= 1:
            assert not working.done()
            await asyncio.sleep(0.005)
    working.cancel()


async def test_work_that_never_waits_lets_others_run() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    looked = 0

    async def handle(key: str) -> float | None:
        nonlocal looked
        looked += 1
        return 0.0 if looked < 1000 else None

    queue.add("a")
    queue.add("b")
    working = asyncio.create_task(work(queue, handle, workers=2))
    for _ in range(20):  # as often as the event loop comes round
        await asyncio.sleep(0)
    assert 0 < looked < 1000, "the watch that brings the news would be starved"
    working.cancel()


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_bounded(failures: int, chance: float) -> None:
    delay = Backoff().delay(failures, chance)
    assert 0 < delay <= 60
