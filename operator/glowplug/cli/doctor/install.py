"""Checks of the installation: CRDs, Deployments, who leads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from glowplug.api import meta
from glowplug.api.crds import crd
from glowplug.api.parsing import KINDS
from glowplug.cli.doctor.finding import Body, Cluster, Finding, bad, ok, warn
from glowplug.kube import CRDS, LEASES, Forbidden, NotFound

APPLY = "helm upgrade --install glowplug-crds charts/glowplug-crds"
LEASE = "glowplug-operator"


async def crds(cluster: Cluster) -> list[Finding]:
    """Every kind is there, served, and as this version of glowplug knows it."""
    return [await _crd(cluster, crd(kind)) for kind in KINDS.values()]


async def _crd(cluster: Cluster, wanted: Body) -> Finding:
    name = wanted["metadata"]["name"]
    try:
        found = await cluster.client.get(CRDS, name)
    except NotFound:
        return bad(f"The CRD {name} is missing.", f"Install it: {APPLY}")
    except Forbidden:
        return warn(
            f"You may not read the CRD {name}.", "Ask for get on customresourcedefinitions."
        )
    versions = {v["name"]: v for v in found["spec"]["versions"] if v.get("served")}
    if meta.VERSION not in versions:
        return bad(f"The CRD {name} does not serve {meta.VERSION}.", f"Update it: {APPLY}")
    conditions = (found.get("status") or {}).get("conditions") or ()
    if not any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
        return bad(f"The CRD {name} is not established.", f"Look at: kubectl describe crd {name}")
    if schema_of(versions[meta.VERSION]) != schema_of(wanted["spec"]["versions"][0]):
        told = f"The CRD {name} differs from the one of this version of glowplug."
        return warn(told, f"Where the operator is of this version too, update it: {APPLY}")
    return ok(f"The CRD {name} is there, as this version of glowplug knows it.")


def schema_of(version: Body) -> Any:
    """Return the schema that objects of a version are checked against, in comparable form."""
    return _plain(version["schema"]["openAPIV3Schema"])


def _plain(node: Any) -> Any:
    """The API server leaves empty lists out and keeps numbers as floats."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if value != []}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return float(node) if isinstance(node, int) and not isinstance(node, bool) else node


async def operator(cluster: Cluster) -> list[Finding]:
    """The operator is available, and one of its Pods leads."""
    found = _available(cluster.operators, "operator")
    if cluster.installed is not None:
        found.append(await _leader(cluster, cluster.installed.namespace))
    return found


async def gateway(cluster: Cluster) -> list[Finding]:
    """The gateway is available."""
    return _available(cluster.gateways, "gateway")


def _available(deployments: Any, component: str) -> list[Finding]:
    if deployments is None:
        told = f"You may not list Deployments, so the {component} was not found."
        return [warn(told, "Ask for list on deployments.apps, or for an administrator's run.")]
    if not deployments:
        told = f"There is no {component} in this cluster."
        return [bad(told, "Install it: helm install glowplug charts/glowplug")]
    return [_deployment(deployment, component) for deployment in deployments]


def _deployment(deployment: Body, component: str) -> Finding:
    metadata, status = deployment["metadata"], deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas", 1)
    ready = status.get("availableReplicas") or 0
    told = f"{ready} of {wanted} replicas of the {component} are available."
    where = f"-n {metadata['namespace']}"
    look = f"Look at: kubectl {where} describe pods -l {'app.kubernetes.io/component'}={component}"
    if not ready:
        return bad(told, look)
    return ok(told) if ready >= wanted else warn(told, look)


async def _leader(cluster: Cluster, namespace: str) -> Finding:
    look = f"Look at: kubectl -n {namespace} logs deploy/glowplug-operator"
    try:
        lease = await cluster.client.get(LEASES, LEASE, namespace)
    except NotFound:
        return bad("No operator has ever led: there is no Lease.", look)
    except Forbidden:
        told = f"You may not read Leases in {namespace}, so who leads is not known."
        return warn(told, "Ask for get on leases.coordination.k8s.io.")
    return leader(lease, datetime.now(UTC), look)


def leader(lease: Body, now: datetime, look: str) -> Finding:
    """Judge a Lease: a holder renews it long before it lapses."""
    spec = lease.get("spec") or {}
    holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
    if not holder or not renewed:
        return bad("No operator leads: nothing is decided.", look)
    age = (now - datetime.fromisoformat(renewed)).total_seconds()
    if age > spec.get("leaseDurationSeconds", 15):
        return bad(f"No operator leads: {holder} renewed its Lease {age:.0f} s ago.", look)
    return ok(f"{holder} leads.")
