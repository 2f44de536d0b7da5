"""A model that changes under load: new revisions, back again, fewer replicas. No request fails."""

from __future__ import annotations

import re

import pytest

from stack.clients import TIMEOUT_S, clients, long_streams
from stack.stack import Json, Stack

KIND = "modeldeployments.glowplug.dev"
pytestmark = pytest.mark.timeout(TIMEOUT_S)


def _fixed(stack: Stack, name: str, replicas: int, gpus: int = 1) -> Json:
    """The example with a count that no demand moves."""
    body = stack.smollm2(name)
    scaling = {"minReplicas": replicas, "maxReplicas": replicas, "targetConcurrency": 16}
    body["spec"]["scaling"] |= scaling
    body["spec"]["gpu"] = {"count": gpus}
    return body


def _changed(body: Json, word: str, **update: int) -> Json:
    """The same with an environment that makes it another revision."""
    engine = body["spec"]["engine"] | {"env": [{"name": "EDITION", "value": word}]}
    return body | {"spec": body["spec"] | {"engine": engine, "update": update}}


def _only(stack: Stack, name: str, revision: str, count: int) -> bool:
    """Whether exactly this many Pods are left, all of this revision, and all serve."""
    there = stack.revisions(name)
    return there == [revision] * count and stack.ready_replicas(name) == count


async def _settled(stack: Stack, name: str, count: int, *, after: str | None = None) -> str:
    """Wait until only the wanted revision is there, and return it; `after`: another than this."""

    def revision() -> str | None:
        body = stack.get(KIND, name) or {}
        status = body.get("status", {})
        seen = status.get("observedGeneration") == body["metadata"]["generation"]
        now: str | None = status.get("revision")
        done = seen and now and now != after and _only(stack, name, now, count)
        return now if done else None

    found = await stack.until(revision, 400)
    assert found is not None
    return found


async def test_a_rolling_update_and_one_reverted_in_the_middle_fail_no_request(
    stack: Stack,
) -> None:
    body = _fixed(stack, "rolled", 3)
    name = stack.deploy(body)
    revision = await _settled(stack, name, 3)
    told: list[str] = []

    def look() -> bool:
        told.append(stack.glowplug("status", name))
        return "Rolled out: 3 of 3 updated (all ready)." in told[-1]

    with clients(stack, name) as campaign:
        for turn in campaign.turns():
            body = _changed(body, f"{turn}", maxSurge=1, maxUnavailable=0)
            before, revision = revision, ""
            stack.apply(body)
            await stack.until(lambda: len(set(stack.revisions(name))) == 2, 120)
            await stack.until(look, 400)
            revision = await _settled(stack, name, 3, after=before)

            with long_streams(stack, name, 3) as streams:
                stack.apply(_changed(body, f"{turn}, thought better of"))
                await stack.until(lambda: stack.draining(name), 240)
                stack.apply(body)
            assert [one for one in streams if not one.finished or one.error] == []
            assert await _settled(stack, name, 3) == revision

    print(campaign)
    assert campaign.failed == []
    assert any(re.search(r"Rolling out: [12] of 3 updated", page) for page in told), told


async def test_an_update_without_a_spare_gpu_takes_one_away_after_a_minute_and_fails_no_request(
    stack: Stack,
) -> None:
    body = _fixed(stack, "tight", 2, gpus=2)
    name = stack.deploy(body)
    revision = await _settled(stack, name, 2)

    with clients(stack, name) as campaign:
        for turn in campaign.turns():
            stack.apply(_changed(body, f"told {turn}", maxSurge=0, maxUnavailable=1))
            revision = await _settled(stack, name, 2, after=revision)
            assert _warned(stack, name) == turn - 1

            stack.apply(_changed(body, f"found {turn}", maxSurge=1, maxUnavailable=0))
            revision = await _settled(stack, name, 2, after=revision)
            assert _warned(stack, name) == turn

    print(campaign)
    assert campaign.failed == []


def _warned(stack: Stack, name: str) -> int:
    """How many rollouts are said to go on without a node for the surge."""
    uid = stack.get(KIND, name)["metadata"]["uid"]
    selector = f"involvedObject.uid={uid},reason=SurgeWithoutNode"
    listed = stack.kubectl("get", "events", "--field-selector", selector, "-o", "name")
    return len(listed.split())


async def test_busy_replicas_that_are_no_longer_wanted_end_what_they_stream(stack: Stack) -> None:
    body = _fixed(stack, "shrunk", 3)
    body["spec"]["scaling"]["minReplicas"] = 1
    body["spec"]["replicas"] = 3
    name = stack.deploy(body)

    with clients(stack, name) as campaign:
        for _ in campaign.turns():
            for way in (
                lambda: stack.kubectl("scale", KIND, name, "--replicas=1"),
                lambda: stack.glowplug("release", name),  # no demand for more than one
            ):
                stack.kubectl("scale", KIND, name, "--replicas=3")
                await stack.until(lambda: stack.ready_replicas(name) == 3, 240)
                with long_streams(stack, name, 6) as streams:
                    await stack.until(lambda: min(map(stack.in_flight, stack.pods(name))), 120)
                    way()
                    victims = await stack.until(lambda: stack.draining(name), 120, pause=0.1)
                    assert max(map(stack.in_flight, victims)) > 0
                assert [one for one in streams if not one.finished or one.error] == []
                await stack.until(lambda: len(stack.pods(name)) == 1, 240)

    print(campaign)
    assert campaign.failed == []
