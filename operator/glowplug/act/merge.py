"""How `spec.template` changes a rendered Pod; pure.

containers, initContainers and volumes are matched by name, a container's env by name and its
volumeMounts by mountPath; every other field that the template sets replaces ours, and a null takes
it away. Labels and annotations are added; those that Glowplug finds its Pods by stay ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glowplug.kube import Json


def merge_template(pod: Json, template: Mapping[str, Any]) -> Json:
    """`pod` (metadata, spec) with `template` (metadata, spec) merged in; neither is changed."""
    theirs = template.get("metadata") or {}
    metadata = dict(pod["metadata"])
    for key in ("labels", "annotations"):
        metadata[key] = {**(theirs.get(key) or {}), **metadata.get(key, {})}
    return {**pod, "metadata": metadata, "spec": _spec(pod["spec"], template.get("spec") or {})}


def _spec(ours: Json, theirs: Mapping[str, Any]) -> Json:
    merged = _replaced(ours, theirs)
    for key in ("containers", "initContainers"):
        if theirs.get(key) is not None:
            merged[key] = _containers(ours.get(key, []), theirs[key])
    if theirs.get("volumes") is not None:
        merged["volumes"] = _by_key(ours.get("volumes", []), theirs["volumes"], "name")
    return merged


def _containers(ours: list[Json], theirs: list[Json]) -> list[Json]:
    known = {container["name"]: container for container in ours}
    changed = [
        _container(known[container["name"]], container)
        if container.get("name") in known
        # An unnamed container is left to the API server, which says so in its own words.
        else container
        for container in theirs
    ]
    return _by_key(ours, changed, "name")


def _container(ours: Json, theirs: Json) -> Json:
    merged = _replaced(ours, theirs)
    for key, match in (("env", "name"), ("volumeMounts", "mountPath")):
        if theirs.get(key) is not None:
            merged[key] = _by_key(ours.get(key, []), theirs[key], match)
    return merged


def _replaced(ours: Json, theirs: Mapping[str, Any]) -> Json:
    return {key: value for key, value in {**ours, **theirs}.items() if value is not None}


def _by_key(ours: list[Json], theirs: list[Json], key: str) -> list[Json]:
    """Ours in our order, each replaced by their entry of the same key; then the rest of theirs."""
    replacements = {entry[key]: entry for entry in theirs if key in entry}
    names = {entry.get(key) for entry in ours}
    kept = [replacements.get(entry.get(key), entry) for entry in ours]
    return kept + [entry for entry in theirs if entry.get(key) not in names]
