"""helm upgrade from chart 0.1.0, rollback, and uninstall, with clients who notice none of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from cluster.config import REPOSITORY, paths
from stack.ask import Answer, ask
from stack.install import CHART, RELEASE, helm, install, service_ip, values
from stack.stack import Stack

OLD = REPOSITORY / "tests" / "data" / "glowplug-0.1.0.tgz"
CLIENTS = 4
REQUESTS = 1000 if "GLOWPLUG_SOAK" in os.environ else 200
# What every namespace has, and what only tells of the past.
ALWAYS_THERE = {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}
HISTORY = {"events", "events.events.k8s.io"}


@pytest.fixture
def old_release(stack: Stack) -> Iterator[Stack]:
    """The same cluster with chart 0.1.0; this tree's release is back after the test."""
    where = paths()
    helm(where, "uninstall", RELEASE)
    try:
        helm(where, "install", RELEASE, OLD, "--skip-crds", values=values(where))
        yield replace(stack, gateway_url=f"http://{service_ip(where, 'glowplug-gateway')}")
    finally:
        install()


@asynccontextmanager
async def clients(stack: Stack, name: str) -> AsyncIterator[list[Answer]]:
    """Streaming requests without a pause, each client one after the other; all answers so far."""
    answers: list[Answer] = []
    stop = asyncio.Event()

    async def client(session: aiohttp.ClientSession) -> None:
        while not stop.is_set():
            asked = ask(stack.gateway_url, name, "Hi", max_tokens=1, session=session)
            try:
                answers.append(await asked)
            except (aiohttp.ClientError, TimeoutError) as error:
                answers.append(Answer(error=repr(error)))

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client(session))
        try:
            yield answers
        finally:
            stop.set()


@pytest.mark.replaces_release
@pytest.mark.timeout(1200)
async def test_no_request_fails_while_helm_upgrades_and_rolls_back_and_nothing_is_left(
    old_release: Stack,
) -> None:
    stack, where = old_release, paths()
    body = stack.smollm2("upgraded")
    body["spec"]["scaling"] |= {"minReplicas": 1, "maxReplicas": 1}
    name = stack.deploy(body)
    await stack.until(lambda: stack.ready_replicas(name) == 1, 120)
    [pod] = [one["metadata"]["uid"] for one in stack.pods(name)]

    async with clients(stack, name) as answers:
        for words in (
            ("upgrade", RELEASE, CHART),  # to two gateways and two operators
            ("rollback", RELEASE, "1"),
            ("upgrade", RELEASE, CHART),
        ):
            told = {} if words[0] == "rollback" else values(where)
            before = len(answers)
            await asyncio.to_thread(helm, where, *words, values=told)
            assert len(answers) > before, f"no request ended during helm {words[0]}"
        await stack.until(lambda: len(answers) >= REQUESTS, 600)

    assert [answer for answer in answers if not answer.finished] == []
    assert [one["metadata"]["uid"] for one in stack.pods(name)] == [pod], "the engine stayed"

    await stack.delete_all()
    helm(where, "uninstall", RELEASE)
    await stack.until(lambda: _left(stack) == set(), 60)


def _left(stack: Stack) -> set[str]:
    """What exists in the release's namespace, and anywhere under its name, but for the CRDs."""
    verbs = ("api-resources", "--verbs=list", "-o", "name")
    kinds = set(stack.kubectl(*verbs, "--namespaced=true").split()) - HISTORY
    listed = stack.kubectl("-n", stack.system, "get", ",".join(kinds), "-o", "json")
    here = {_name(item) for item in json.loads(listed)["items"]}
    kinds = set(stack.kubectl(*verbs, "--namespaced=false").split())
    listed = stack.kubectl(
        "get", ",".join(kinds), "-o", "json", "-l", f"app.kubernetes.io/instance={RELEASE}"
    )
    return here - ALWAYS_THERE | {_name(item) for item in json.loads(listed)["items"]}


def _name(item: dict) -> str:
    return f"{item['kind']}/{item['metadata']['name']}"
