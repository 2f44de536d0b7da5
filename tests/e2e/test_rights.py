"""RBAC against the API server's audit log: nothing was refused, and what is granted is used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cluster.config import paths
from stack.ask import ask
from stack.stack import Stack

Right = tuple[str, str, str]  # API group, resource with subresource, verb
ACCOUNTS = ("glowplug-operator", "glowplug-gateway")
# Granted and not in the log of a quiet life, each with the reason.
EXPLAINED: dict[Right, str] = {
    ("", "pods", "get"): "read when a name is taken already, after a crash between two writes",
    ("", "services", "get"): "read when a Service of a model's name is somebody else's",
    ("", "services", "create"): "server-side apply asks for it and is logged as patch",
    ("", "configmaps", "create"): "server-side apply asks for it and is logged as patch",
    ("", "configmaps", "delete"): "asked for by OwnerReferencesPermissionEnforcement, by name",
    ("coordination.k8s.io", "leases", "delete"): "the same",
    ("batch", "jobs", "delete"): "a Job that failed is deleted to be made anew",
}


async def test_what_is_granted_is_used_and_nothing_was_refused(stack: Stack) -> None:
    name = stack.deploy(stack.smollm2("rights"))
    assert (await ask(stack.gateway_url, name, "Say hello.", max_tokens=8)).finished
    await stack.until(lambda: stack.condition(name, "SnapshotReady", status="True"), 180)
    await stack.until(lambda: stack.pods(name) == [], 180)

    for account in ACCOUNTS:
        # An earlier release may have been stopped while its roles were being removed.
        deployment = stack.cluster.get("-n", stack.system, "deployment", account)
        since = deployment["metadata"]["creationTimestamp"]
        asked = list(_asked(f"system:serviceaccount:{stack.system}:{account}", since))
        refused = {right for right, allowed in asked if not allowed}
        assert refused == set()
        granted = _granted(stack, account)
        used = {right for right, _ in asked}
        assert used <= granted
        assert granted - used <= set(EXPLAINED), account


def _asked(user: str, since: str) -> Iterator[tuple[Right, bool]]:
    """What a service account asked for since then (RFC 3339 in UTC), and whether RBAC let it.

    Admission forbids too, as in a namespace that is being deleted: that is nothing about rights.
    """
    for path in sorted((paths().root / "logs").glob("audit*.log")):
        for line in path.read_text().splitlines():
            event = json.loads(line)
            what = event.get("objectRef")
            late = event["requestReceivedTimestamp"] >= since
            if event["user"]["username"] != user or what is None or not late:
                continue
            resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
            decision = event.get("annotations", {}).get("authorization.k8s.io/decision")
            yield (what.get("apiGroup", ""), resource, event["verb"]), decision != "forbid"


def _granted(stack: Stack, account: str) -> set[Right]:
    roles = [stack.cluster.get("clusterrole", account)]
    roles += stack.cluster.get("-n", stack.system, "roles")["items"]
    return {
        (group, resource, verb)
        for role in roles
        if role["metadata"]["name"] == account
        for rule in role["rules"]
        for group, resource, verb in _each(rule)
    }


def _each(rule: dict[str, Any]) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                yield group, resource, verb
