"""The launcher's ConfigMap: whoever writes it last names every owner."""

import asyncio
from typing import Any

from glowplug.act.launcher import Launchers
from glowplug.act.refs import Ref


class SlowFirst:
    """A writer whose first request reaches the API server after all others."""

    def __init__(self) -> None:
        self.owners: list[set[str]] = []
        self._begun = 0

    async def apply(self, res: object, body: dict[str, Any], *, field_manager: str) -> None:
        self._begun += 1
        await asyncio.sleep(0.05 / self._begun)
        self.owners.append({owner["uid"] for owner in body["metadata"]["ownerReferences"]})


async def test_the_last_write_names_every_owner() -> None:
    writer = SlowFirst()
    launchers = Launchers(writer, b"a zipapp", lambda: 0.0)
    a, b = refs("ab")
    await asyncio.gather(launchers.ensure(a, lambda: [a]), launchers.ensure(b, lambda: [a, b]))
    assert writer.owners == [{"a"}, {"a", "b"}]
    await launchers.ensure(a, lambda: [a])
    assert len(writer.owners) == 2, "what was written is trusted"


async def test_a_herd_writes_once_for_all_that_are_known_by_then() -> None:
    writer, models = SlowFirst(), refs("abcd")
    launchers, known = Launchers(writer, b"a zipapp", lambda: 0.0), models[:1]
    herd = [asyncio.create_task(launchers.ensure(model, lambda: known)) for model in models]
    await asyncio.sleep(0.01)
    known += models[1:]
    await asyncio.gather(*herd)
    assert writer.owners == [{"a"}, {"a", "b", "c", "d"}]


async def test_neighbours_are_gathered_only_for_a_write() -> None:
    launchers = Launchers(SlowFirst(), b"a zipapp", lambda: 0.0)
    [a] = refs("a")
    await launchers.ensure(a, lambda: [a])

    def never() -> list[Ref]:
        raise AssertionError("a thousand models would each look at all the others")

    await launchers.ensure(a, never)


def refs(names: str) -> list[Ref]:
    return [Ref("ModelDeployment", "ns", name, name) for name in names]
