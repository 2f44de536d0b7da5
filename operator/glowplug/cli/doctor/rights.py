"""Checks of RBAC: what this user may do, and what the operator may do."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from glowplug.cli.doctor.finding import Body, Cluster, Finding, bad, ok, warn
from glowplug.kube import ApiError, Forbidden, Resource

_GROUP = "authorization.k8s.io"
SELF = Resource(_GROUP, "v1", "selfsubjectaccessreviews", False, "SelfSubjectAccessReview")
SUBJECT = Resource(_GROUP, "v1", "subjectaccessreviews", False, "SubjectAccessReview")


@dataclass(frozen=True, slots=True)
class Right:
    """Verbs on one resource ("plural" or "plural/subresource"); `own`: only where it runs."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    own: bool = False

    def __str__(self) -> str:
        return f"{self.resource}.{self.group}" if self.group else self.resource


READ = ("list", "watch")
USER = (
    Right("glowplug.dev", "modeldeployments", ("get", "list", "patch")),
    Right("", "pods", ("list",)),
    Right("", "pods/proxy", ("get",)),
)
OPERATOR = (
    Right("glowplug.dev", "modeldeployments", READ),
    Right("glowplug.dev", "modelsnapshots", (*READ, "create")),
    Right("glowplug.dev", "gpupools", READ),
    Right("glowplug.dev", "modeldeployments/status", ("patch",)),
    Right("glowplug.dev", "modelsnapshots/status", ("patch",)),
    Right("glowplug.dev", "gpupools/status", ("patch",)),
    Right("", "pods", ("get", *READ, "create", "patch", "delete")),
    Right("", "services", ("get", *READ, "create", "patch")),
    Right("", "configmaps", ("create", "patch")),
    Right("", "nodes", READ),
    Right("batch", "jobs", ("get", "create", "delete")),
    Right("events.k8s.io", "events", ("create",)),
    Right("coordination.k8s.io", "leases", ("get", "create", "patch"), own=True),
    Right("discovery.k8s.io", "endpointslices", READ, own=True),
)


async def user(cluster: Cluster) -> list[Finding]:
    """Whoever runs this may do what the other commands need."""
    namespace = cluster.options.namespace
    missing = await _missing(cluster, USER, SELF, {}, namespace)
    if missing is None:
        return [warn("Your rights could not be asked for.", "Log in again, then repeat.")]
    if not missing:
        return [ok(f"You may use every command in the namespace {namespace}.")]
    told = f"In the namespace {namespace} you lack {_listed(missing)}."
    return [warn(told, "The other commands need them: ask an administrator for a Role.")]


async def operator(cluster: Cluster) -> list[Finding]:
    """The operator's service account may do what it does."""
    installed = cluster.installed
    if installed is None:
        return []
    name = f"system:serviceaccount:{installed.namespace}:{installed.service_account}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{installed.namespace}"]
    who = {"user": name, "groups": [*groups, "system:authenticated"]}
    missing = await _missing(cluster, OPERATOR, SUBJECT, who, installed.namespace)
    if missing is None:
        told = "You may not ask what the operator's service account may do."
        return [warn(told, "Ask an administrator to run this (create on subjectaccessreviews).")]
    if not missing:
        return [ok(f"The service account {installed.service_account} may do all that it must.")]
    told = f"The service account {installed.service_account} lacks {_listed(missing)}."
    return [bad(told, "Bring its roles back: helm upgrade glowplug charts/glowplug")]


async def _missing(
    cluster: Cluster, rights: tuple[Right, ...], kind: Resource, who: Body, namespace: str
) -> dict[str, list[str]] | None:
    """Verbs that are refused, by resource; None when nobody may ask."""
    asked = [(right, verb) for right in rights for verb in right.verbs]
    everywhere = kind is SUBJECT

    async def may(right: Right, verb: str) -> bool:
        plural, _, sub = right.resource.partition("/")
        attributes = {"group": right.group, "resource": plural, "subresource": sub, "verb": verb}
        if right.own or not everywhere:
            attributes["namespace"] = namespace
        body: Body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "spec": {**who, "resourceAttributes": attributes},
        }
        answer = await cluster.client.create(kind, body)
        return bool(answer["status"]["allowed"])

    try:
        answers = await asyncio.gather(*(may(right, verb) for right, verb in asked))
    except Forbidden:
        return None
    except ApiError as error:
        if error.status == 401:
            return None
        raise
    missing: dict[str, list[str]] = defaultdict(list)
    for (right, verb), allowed in zip(asked, answers, strict=True):
        if not allowed:
            missing[str(right)].append(verb)
    return missing


def _listed(missing: dict[str, list[str]]) -> str:
    return "; ".join(f"{'/'.join(verbs)} on {what}" for what, verbs in missing.items())
