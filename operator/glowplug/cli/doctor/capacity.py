"""Checks of GPUs: nodes offer them, and every pool's selector finds nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from glowplug.cli.doctor.finding import Body, Cluster, Finding, bad, ok, warn

DEFAULT_RESOURCE = "nvidia.com/gpu"
_NO_NODES = warn("You may not list Nodes, so GPUs were not looked for.", "Ask for list on nodes.")


async def gpus(cluster: Cluster) -> list[Finding]:
    """Some node offers each resource that a model asks for."""
    if cluster.nodes is None:
        return [_NO_NODES]
    wanted = sorted({name for body in cluster.models or () if (name := resource_of(body))})
    return [_resource(cluster.nodes, name, asked=True) for name in wanted] or [
        _resource(cluster.nodes, DEFAULT_RESOURCE, asked=False)
    ]


def resource_of(model: Body) -> str | None:
    """Return the GPU resource that a ModelDeployment asks for; None where it needs no GPU."""
    gpu = (model.get("spec") or {}).get("gpu") or {}
    return None if gpu.get("count") == 0 else gpu.get("resource") or DEFAULT_RESOURCE


def _resource(nodes: Sequence[Body], name: str, *, asked: bool) -> Finding:
    offers = {n["metadata"]["name"]: offered(n, name) for n in nodes if offered(n, name)}
    if offers:
        return ok(f"{len(offers)} of {len(nodes)} nodes offer {sum(offers.values())} {name}.")
    advice = (
        "Install the device plugin of the GPUs' vendor, and look at: "
        "kubectl get nodes -o custom-columns=NAME:.metadata.name,OFFERS:.status.allocatable"
    )
    told = f"No node offers {name}"
    if asked:
        return bad(f"{told}, and models ask for it.", advice)
    return warn(f"{told}.", f"{advice} Models with gpu.count: 0 need none.")


def offered(node: Body, name: str) -> int:
    """Return how many of a resource a node offers."""
    text = str(((node.get("status") or {}).get("allocatable") or {}).get(name, "0"))
    return int(text) if text.isdigit() else 0


async def pools(cluster: Cluster) -> list[Finding]:
    """Every pool, and every rung of its ladder, finds nodes; one pool at most is the default."""
    if cluster.pools is None:
        return [warn("GPUPools cannot be listed.", "Ask for list on gpupools.glowplug.dev.")]
    if not cluster.pools:
        return [ok("There is no GPUPool: replicas go wherever their GPU resource fits.")]
    if cluster.nodes is None:
        return [_NO_NODES]
    found = [finding for pool in cluster.pools for finding in _pool(pool, cluster.nodes)]
    return [*_defaults(cluster.pools, cluster.models or ()), *found]


def _defaults(pools: Sequence[Body], models: Sequence[Body]) -> list[Finding]:
    defaults = [p["metadata"]["name"] for p in pools if p["spec"].get("default")]
    if len(defaults) > 1:
        told = f"The GPUPools {', '.join(sorted(defaults))} are all the default; the oldest is."
        return [warn(told, "Set spec.default on one pool only.")]
    homeless = [
        m for m in models if resource_of(m) and not (m["spec"].get("gpu") or {}).get("pool")
    ]
    if homeless and not defaults:
        first = homeless[0]["metadata"]
        told = f"No GPUPool is the default, and {first['namespace']}/{first['name']} names none."
        return [bad(told, "Set spec.default on one pool, or name one in spec.gpu.pool.")]
    return []


def _pool(pool: Body, nodes: Sequence[Body]) -> list[Finding]:
    name, spec = pool["metadata"]["name"], pool.get("spec") or {}
    common = spec.get("nodeSelector") or {}
    places = {f"rung {r['name']} of GPUPool {name}": r for r in spec.get("ladder") or ()}
    places = places or {f"GPUPool {name}": {}}
    found = [
        _place(place, {**common, **(rung.get("nodeSelector") or {})}, nodes)
        for place, rung in places.items()
    ]
    if any(finding.level == "ok" for finding in found):
        # Nodes of one kind are enough to run; the rest may be made on demand.
        return [replace(one, level="warn") if one.level == "fail" else one for one in found]
    return found


def _place(place: str, selector: Mapping[str, Any], nodes: Sequence[Body]) -> Finding:
    matching = [n for n in nodes if selector.items() <= (n["metadata"].get("labels") or {}).items()]
    usable = [n for n in matching if not (n.get("spec") or {}).get("unschedulable")]
    labels = ",".join(f"{key}={value}" for key, value in selector.items())
    title, which = place[0].upper() + place[1:], labels or "any label"
    if usable:
        return ok(f"{title} matches {len(usable)} nodes ({which}).")
    if matching:
        told = f"{title} matches {len(matching)} nodes, all of them cordoned ({which})."
        return bad(told, "Uncordon one, or add nodes.")
    if not labels:
        return bad(f"{title} matches every node, and there is none.", "Add nodes.")
    advice = f"Label nodes, or change nodeSelector; now: kubectl get nodes -l '{labels}'"
    return bad(f"{title} matches no node ({labels}).", advice)
