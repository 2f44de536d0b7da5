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
    a, b = (Ref("ModelDeployment", "ns", name, name) for name in "ab")
    await asyncio.gather(launchers.ensure("ns", [a]), launchers.ensure("ns", [a, b]))
    assert writer.owners == [{"a"}, {"a", "b"}]
    await launchers.ensure("ns", [a])
    assert len(writer.owners) == 2, "what was written is trusted"
