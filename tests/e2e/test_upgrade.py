"""helm upgrade from chart 0.1.0, rollback, and uninstall, with clients who notice none of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from cluster.config import REPOSITORY, paths
from stack.clients import REQUESTS, TIMEOUT_S, clients
from stack.install import CHART, RELEASE, helm, install, service_ip, values
from stack.leftovers import left
from stack.stack import Stack

OLD = REPOSITORY / "tests" / "data" / "glowplug-0.1.0.tgz"


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


@pytest.mark.replaces_release
@pytest.mark.timeout(TIMEOUT_S)
async def test_no_request_fails_while_helm_upgrades_and_rolls_back_and_nothing_is_left(
    old_release: Stack,
) -> None:
    stack, where = old_release, paths()
    body = stack.smollm2("upgraded")
    body["spec"]["scaling"] |= {"minReplicas": 1, "maxReplicas": 1}
    name = stack.deploy(body)
    await stack.until(lambda: stack.ready_replicas(name) == 1, 120)
    [pod] = [one["metadata"]["uid"] for one in stack.pods(name)]

    with clients(stack, name) as campaign:
        for words in (
            ("upgrade", RELEASE, CHART),  # to two gateways and two operators
            ("rollback", RELEASE, "1"),
            ("upgrade", RELEASE, CHART),
        ):
            told = {} if words[0] == "rollback" else values(where)
            before = campaign.sent
            helm(where, *words, values=told)
            assert campaign.sent > before, f"no request ended during helm {words[0]}"
        await stack.until(lambda: campaign.sent >= REQUESTS, TIMEOUT_S)

    print(campaign)
    assert campaign.failed == []
    assert [one["metadata"]["uid"] for one in stack.pods(name)] == [pod], "the engine stayed"

    await stack.delete_all()
    await stack.until(lambda: _is_owned(stack), 120)
    helm(where, "uninstall", RELEASE)
    await stack.until(lambda: left(stack) == set(), 90)


def _is_owned(stack: Stack) -> bool:
    """Whether an operator of this chart leads: the Lease of 0.1.0 belongs to no Pod, and stays."""
    lease = stack.cluster.get("-n", stack.system, "lease", "glowplug-operator")
    return bool(lease["metadata"].get("ownerReferences"))
