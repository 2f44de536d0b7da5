"""Killed before and after each of its writes, the operator still ends where it would have ended.

`make test` kills at a sample of the points, drawn by GLOWPLUG_SEED (default 1); with
GLOWPLUG_SOAK=1 every write of every story is met from both sides.
"""

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glowplug.kube import MODELDEPLOYMENTS, NAMESPACES, Client

from ..life import Fate, Life, lease_runs_out
from .actors import Witness, at_work
from .essence import essence
from .scenarios import STORIES, Stage, Story

SOAK = os.environ.get("GLOWPLUG_SOAK") == "1"
SEED = int(os.environ.get("GLOWPLUG_SEED", "1"))
SAMPLE = 6  # of each story: about a minute in all
PATIENCE_S = 30.0
LINGER_S = 0.5
MOST_WRITES = 60  # of a second life; a whole story takes about 20

pytestmark = [
    pytest.mark.usefixtures("garbage_collector"),
    pytest.mark.timeout(3600 if SOAK else 300),
]


@dataclass
class Theatre:
    """Where stories are told one after the other, each in a namespace of its own."""

    client: Client
    kubeconfig: Path
    namespace: str
    gateway: Any
    eventually: Callable[..., Awaitable[Any]]

    async def tell(self, story: Story, fate: Fate, end: dict[str, Any] | None) -> dict[str, Any]:
        """Tell a story; returns the state it ends in, which is awaited where it is given."""
        stage = Stage(self.client, f"crash-{uuid.uuid4().hex[:8]}", self.gateway)
        await self.client.create(NAMESPACES, {"metadata": {"name": stage.namespace}})
        begun = False
        witness = Witness(story.at_most, lambda: story.at_least if begun else 0)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._clear, stage)
            await stack.enter_async_context(at_work(self.client, stage.namespace, self.gateway))
            await stack.enter_async_context(witness.watching(self.client, stage.namespace))
            async with self._life(fate):
                await story.prepare(stage)
                await self._until(lambda: story.is_prepared(stage))
                begun = True
                fate.arm()
                await story.begin(stage)
                await self._death_or_end(story, stage, fate)
                if story.dies_with_model:
                    await self.client.delete(MODELDEPLOYMENTS, "m", stage.namespace)
            second = Fate()
            second.arm()
            async with self._life(second):
                found = await self._end(story, stage, end)
        assert not witness.complaints, witness.complaints
        assert len(second.writes) <= MOST_WRITES, "a second life that goes round in circles"
        return found

    async def _death_or_end(self, story: Story, stage: Stage, fate: Fate) -> None:
        async def either() -> bool:
            return fate.ended.is_set() or await story.is_over(stage)

        await self._until(either)
        if not fate.ended.is_set():
            await self._quiet(fate)

    async def _quiet(self, fate: Fate) -> None:
        """The writes that follow the last transition: a status, an event."""
        seen = -1
        while seen != len(fate.writes) and not fate.ended.is_set():
            seen = len(fate.writes)
            await asyncio.sleep(LINGER_S)

    async def _end(
        self, story: Story, stage: Stage, wanted: dict[str, Any] | None
    ) -> dict[str, Any]:
        async def look() -> dict[str, Any]:
            return await essence(self.client, stage.namespace)

        if wanted is None:
            await asyncio.sleep(LINGER_S)
            if story.dies_with_model:
                await self._until(lambda: self._is_empty(stage))
            return await look()

        async def there() -> bool:
            return await look() == wanted

        with contextlib.suppress(AssertionError):
            await self._until(there)
            await asyncio.sleep(LINGER_S)
        return await look()

    async def _is_empty(self, stage: Stage) -> bool:
        return not any((await essence(self.client, stage.namespace)).values())

    async def _clear(self, stage: Stage) -> None:
        self.gateway.models.pop(f"{stage.namespace}/m", None)
        await self.client.delete(MODELDEPLOYMENTS, "m", stage.namespace)

    async def _until(self, what: Callable[[], Awaitable[Any]]) -> None:
        await self.eventually(what, seconds=PATIENCE_S)

    @contextlib.asynccontextmanager
    async def _life(self, fate: Fate) -> Any:
        try:
            async with Life(self.kubeconfig, self.namespace, fate):
                yield
        finally:
            await lease_runs_out(self.client, self.namespace)


def points(name: str, writes: int) -> Iterator[tuple[int, bool]]:
    """(number, after) of the deaths to die: all of them, or a sample that the seed draws."""
    every = [(number, after) for number in range(1, writes + 1) for after in (False, True)]
    yield from every if SOAK else sorted(random.Random(f"{SEED} {name}").sample(every, SAMPLE))


@pytest.mark.parametrize("name", STORIES)
async def test_same_end_whenever_killed(name, client, apiserver, namespace, gateway, eventually):
    theatre = Theatre(client, apiserver, namespace, gateway, eventually)
    story, undisturbed = STORIES[name], Fate()
    wanted = await theatre.tell(story, undisturbed, None)
    print(f"{name}: {len(undisturbed.writes)} writes", *undisturbed.writes, sep="\n  ")
    assert len(undisturbed.writes) >= 5, "a story without writes proves nothing"
    died = 0
    for number, after in points(name, len(undisturbed.writes)):
        fate = Fate(number, after=after)
        found = await theatre.tell(story, fate, wanted)
        last = fate.writes[-1] if fate.writes else "none"
        side = "after" if after else "before"
        assert found == wanted, f"killed {side} write {number}: {last}"
        died += number <= len(fate.writes)
    print(f"{name}: killed at {died} points, the same end each time")
    assert died, "nobody was killed"
