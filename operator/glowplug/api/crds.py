"""The CustomResourceDefinitions, generated from the models: `python -m glowplug.api.crds [DIR]`.

Nothing is defaulted by the API server, so what a user commits is what the cluster holds, and no
GitOps tool sees a difference. Defaults are said in the descriptions and applied in code.
"""

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from glowplug.api import meta
from glowplug.api.base import Object, cel_rules
from glowplug.api.parsing import KINDS

HEADER = "# Generated from the models in operator/glowplug/api by `make crds`; do not edit.\n"

# Keywords of JSON Schema that structural schemas do not have, or that we say otherwise.
_DROPPED = {"title", "default", "$defs", "discriminator"}


def crd(kind: type[Object]) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    subresources: dict[str, Any] = {"status": {}}
    if kind.scale:
        subresources["scale"] = dict(kind.scale)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{meta.GROUP}"},
        "spec": {
            "group": meta.GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short_name],
                "categories": [meta.MANAGER],
            },
            "versions": [
                {
                    "name": meta.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path, "description": description}
                        for name, type_, path, description in kind.columns
                    ],
                    "schema": {"openAPIV3Schema": _root(kind)},
                }
            ],
        },
    }


def _root(kind: type[Object]) -> dict[str, Any]:
    spec = kind.model_fields["spec"]
    assert isinstance(spec.annotation, type)
    return {
        "type": "object",
        "description": kind.__doc__,
        "required": ["spec"] if spec.is_required() else [],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this kind."},
            "kind": {"type": "string", "description": "Name of this kind."},
            "metadata": {"type": "object"},
            "spec": structural(spec.annotation),
            "status": structural(kind.status_model),
        },
        "x-kubernetes-validations": cel_rules(kind.rules),
    }


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of a model: no references, no unions, no titles."""
    schema = model.model_json_schema(mode="validation", by_alias=True)
    result: dict[str, Any] = _flatten(schema, schema.get("$defs", {}))
    return result


def _flatten(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    node = _resolve(node, definitions)
    flat = {key: value for key, value in node.items() if key not in _DROPPED}
    if "const" in flat:
        flat["enum"] = [flat.pop("const")]
    if flat.get("type") == "integer":
        flat["format"] = "int64"
    if "properties" in flat:
        flat["properties"] = {
            name: _flatten(field, definitions) for name, field in flat["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if isinstance(flat.get(key), dict):
            flat[key] = _flatten(flat[key], definitions)
    if node.get("default") not in (None, "", [], {}) or node.get("default") is False:
        flat["description"] = f"{flat['description']} Default: {_written(node['default'])}."
    return flat


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, and take `X | None` for an X that may be left out."""
    if "anyOf" in node:
        (kept,) = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
        node = {**kept, **{key: value for key, value in node.items() if key != "anyOf"}}
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        return _resolve(node, definitions)
    return node


def _written(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def write(directory: Path) -> list[Path]:
    """Write one file per kind; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in KINDS.values():
        path = directory / f"{meta.GROUP}_{kind.plural}.yaml"
        path.write_text(HEADER + yaml.safe_dump(crd(kind), sort_keys=False, width=100))
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write(Path(sys.argv[1] if len(sys.argv) > 1 else "crds")):
        print(written)
