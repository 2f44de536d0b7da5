"""At rest the operator writes nothing but its Lease, by the API server's own audit log.

For a minute here; GLOWPLUG_SOAK=1 watches for five.
"""

import asyncio
import contextlib
import json
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

SOAK = os.environ.get("GLOWPLUG_SOAK") == "1"
WATCHED_S = 300 if SOAK else 60

pytestmark = pytest.mark.timeout(2 * WATCHED_S + 300)


async def test_ten_idle_models_cost_no_write_but_the_lease(
    apiserver, operator, gateway, kubelet, models, eventually, namespace
):
    await operator.start()
    parked, serving = [f"parked-{n}" for n in range(8)], ["serving-0", "serving-1"]
    for name in parked:
        await models.create(name, scaling={"idleAfter": "10s"})
    for name in serving:
        await models.create(name, scaling={"minReplicas": 1})
    for name in parked:
        await models.becomes(name, "Ready", "True", "ScaledToZero")
    await eventually(kubelet.pods)
    for name in serving:
        await serves(name, kubelet, models, eventually)
    await gateway.connected.wait()
    await eventually(lambda: settled(operator), seconds=60)

    since = datetime.now(UTC)
    await asyncio.sleep(WATCHED_S)
    written = writes(apiserver.parent / "logs", since, namespace)
    leases = written.pop("update leases", 0) + written.pop("patch leases", 0)
    assert written == {}
    assert leases > WATCHED_S / 10, "the audit log tells of the Lease, so it would tell of others"


async def serves(name, kubelet, models, eventually):
    async def look():
        await kubelet.serve_all()
        return (await models.condition(name, "Ready")).get("reason") == "Serving"

    await eventually(look, every=0.5)


async def settled(operator) -> bool:
    """Whether nothing was written for five seconds."""
    before = await operator.writes()
    await asyncio.sleep(5.0)
    return await operator.writes() == before


def writes(logs: Path, since: datetime, namespace: str) -> Counter[str]:
    """Writes in our namespace or to our cluster-wide kinds, as "verb resource"."""
    found: Counter[str] = Counter()
    for path in logs.glob("audit*.log"):
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the last line may be half written
                record = json.loads(line)
                where = record.get("objectRef") or {}
                late = datetime.fromisoformat(record["requestReceivedTimestamp"]) >= since
                ours = record["user"]["username"] == "kubernetes-admin"
                if late and ours and where.get("namespace", namespace) == namespace:
                    found[f"{record['verb']} {where.get('resource')}"] += 1
    return found
