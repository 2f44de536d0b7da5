"""The operator's HTTP port, asked as Prometheus and the `glowplug` command ask it."""

from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from glowplug.control.server import application
from glowplug.observe import ColdStart

START = ColdStart("ns/smol", "uid", 3.0, {"restore": 3.0}, {"image": 1.0}, "cold", 1_000.0)


async def asked(path: str, *, ready: bool = True) -> tuple[int, Any]:
    starts = {"ns/smol": [START]}
    app = application(
        CollectorRegistry(),
        lambda: (),
        lambda model: starts.get(model, []),
        {"ns/smol": {"uid": 4}}.get,
        lambda: ready,
    )
    async with TestClient(TestServer(app)) as client, client.get(path) as response:
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text())


async def test_cold_starts_look_like_the_one_in_the_status() -> None:
    assert await asked("/cold-starts/ns/smol") == (
        200,
        [
            {
                "total": 3.0,
                "path": "cold",
                "at": "1970-01-01T00:16:37Z",
                "stages": {"restore": 3.0},
                "hidden": {"image": 1.0},
            }
        ],
    )
    assert await asked("/cold-starts/ns/unheard-of") == (200, [])


async def test_requests_in_flight_are_told_by_pod_or_not_known() -> None:
    assert await asked("/in-flight/ns/smol") == (200, {"uid": 4})
    assert await asked("/in-flight/ns/silent") == (200, None)


async def test_no_engines_are_told_before_all_are_known() -> None:
    assert await asked("/sd/engines") == (200, [])
    assert (await asked("/sd/engines", ready=False))[0] == 503
    assert (await asked("/readyz", ready=False))[0] == 503
    assert (await asked("/healthz", ready=False))[0] == 200
