"""`glowplug.kube.Client` over a `World`, through a network that delays, loses and repeats."""

import asyncio
import copy
from collections.abc import AsyncGenerator
from typing import Any

from glowplug.kube import Json, NotFound, Resource

from .world import Disturbance, Watch, World, deliveries, gone, lost

PAGE = 2


class SimulatedClient:
    """The verbs that the operator uses, with the real one's signatures and errors."""

    def __init__(self, world: World, disturbance: Disturbance) -> None:
        self._world = world
        self._disturbance = disturbance
        self.writes = 0

    async def get(self, res: Resource, name: str, namespace: str | None = None) -> Json:
        await self._way("on the way there")
        found = copy.deepcopy(self._world.get(res, namespace or "", name))
        await self._way("on the way back")
        return found

    async def pages(
        self, res: Resource, namespace: str | None = None, **_: Any
    ) -> AsyncGenerator[Json, None]:
        await self._way("on the way there")
        items = [copy.deepcopy(item) for item in self._world.all(res)]
        meta = {"resourceVersion": str(self._world.version)}
        for start in range(0, max(1, len(items)), PAGE):
            await self._way("between pages")
            yield {"metadata": meta, "items": items[start : start + PAGE]}

    async def watch(
        self, res: Resource, namespace: str | None = None, *, resource_version: str, **_: Any
    ) -> Watch:
        """Every event after `resource_version`, each batch whole before anything is cut."""
        disturbance, log = self._disturbance, self._world.log[res.plural]
        position = sum(version <= int(resource_version) for version, _, _ in log)
        while True:
            await asyncio.sleep(0.05 + disturbance.event())
            if disturbance.happens(0.03):
                raise gone() if disturbance.chance.random() < 0.5 else lost("in a watch")
            if position == len(log):
                continue
            batch = deliveries(log, position, disturbance.chance)
            position += len({v for v, _, _ in batch} & {v for v, _, _ in log[position:]})
            for _, what, body in batch:
                yield what, copy.deepcopy(body)
            yield "BOOKMARK", {"metadata": {"resourceVersion": str(log[position - 1][0])}}

    async def create(
        self, res: Resource, body: Json, namespace: str | None = None, *, dry_run: bool = False
    ) -> Json:
        if dry_run:
            await self._way("on the way there")
            return body
        return await self._write(lambda: self._world.create(res, body))

    async def apply(
        self,
        res: Resource,
        body: Json,
        *,
        field_manager: str,
        subresource: str | None = None,
        force: bool = True,
    ) -> Json:
        return await self._write(lambda: self._world.apply(res, body, subresource))

    async def patch(
        self, res: Resource, name: str, body: Any, namespace: str | None = None, **_: Any
    ) -> Json:
        return await self._write(lambda: self._world.change(res, namespace or "", name, body))

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        **_: Any,
    ) -> None:
        try:
            await self._write(lambda: self._world.delete(res, namespace or "", name, uid))
        except NotFound:
            return

    async def _write(self, commit: Any) -> Any:
        self.writes += 1
        await self._way("on the way there")
        answer = copy.deepcopy(commit())
        await self._way("on the way back")
        return answer

    async def _way(self, where: str) -> None:
        await asyncio.sleep(self._disturbance.request())
        if self._disturbance.happens(self._disturbance.failing):
            raise lost(where)
