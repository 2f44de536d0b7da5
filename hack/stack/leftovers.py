"""What an uninstalled release has left behind, whoever installed and removed it."""

from __future__ import annotations

import json

from stack.install import RELEASE
from stack.stack import Json, Stack

# What every namespace has, and what only tells of the past.
ALWAYS_THERE = {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"}
HISTORY = {"events", "events.events.k8s.io"}


def left(stack: Stack) -> set[str]:
    """What exists in the release's namespace, and anywhere under its name, but for the CRDs."""
    here = _names(stack, "--namespaced=true", "-n", stack.system)
    everywhere = _names(stack, "--namespaced=false", "-l", f"app.kubernetes.io/instance={RELEASE}")
    return here - ALWAYS_THERE | everywhere


def _names(stack: Stack, scope: str, *words: str) -> set[str]:
    """kind/name of the objects of all kinds of a scope."""
    listed = stack.kubectl("api-resources", "--verbs=list", "-o", "name", scope).split()
    kinds = ",".join(sorted(set(listed) - HISTORY))
    items: list[Json] = json.loads(stack.kubectl("get", kinds, "-o", "json", *words))["items"]
    return {f"{item['kind']}/{item['metadata']['name']}" for item in items}
