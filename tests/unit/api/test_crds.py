"""The generated CRDs: up to date, and with nothing in them that the house rules forbid."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from glowplug.api.crds import crd, write
from glowplug.api.parsing import KINDS

REPOSITORY = Path(__file__).parents[3]
SCHEMAS = {
    name: crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for name, kind in KINDS.items()
}


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}{mark}")


ALL = [
    pytest.param(path, node, id=f"{kind}{path}")
    for kind, schema in SCHEMAS.items()
    for path, node in nodes(schema)
    if not path.startswith((".apiVersion", ".kind", ".metadata"))
]


@pytest.mark.parametrize("folder", ["crds", "charts/glowplug/crds", "charts/glowplug-crds/files"])
def test_the_committed_files_are_what_the_models_say(folder, tmp_path):
    generated = {path.name: path.read_text() for path in write(tmp_path)}
    committed = {path.name: path.read_text() for path in (REPOSITORY / folder).glob("*.yaml")}
    assert committed == generated, "run `make crds`"


@pytest.mark.parametrize(("path", "node"), ALL)
def test_every_node_is_described_bounded_and_has_one_type(path, node):
    assert not {"anyOf", "oneOf", "allOf", "$ref", "default", "title"} & node.keys()
    if not path.endswith(("[]", "{}")):
        assert node.get("description", "").endswith((".", "?")), "no description"
    if node.get("x-kubernetes-int-or-string"):
        assert "type" not in node
        return
    match node["type"]:
        case "integer" | "number":
            assert "minimum" in node
            assert "maximum" in node or path.lower().endswith("generation")
        case "string":
            assert "maxLength" in node or "enum" in node
        case "array":
            assert "maxItems" in node
        case "object" if "additionalProperties" in node:
            assert "maxProperties" in node
        case "object":
            assert "properties" in node or node["x-kubernetes-preserve-unknown-fields"] is True
        case "boolean":
            pass
        case other:
            pytest.fail(f"unexpected type {other}")


def test_only_the_source_is_required():
    spec = SCHEMAS["ModelDeployment"]["properties"]["spec"]

    assert spec["required"] == ["model"]
    assert spec["properties"]["model"]["required"] == ["source"]


def test_defaults_are_said_in_words():
    scaling = SCHEMAS["ModelDeployment"]["properties"]["spec"]["properties"]["scaling"]

    assert scaling["properties"]["idleAfter"]["description"].endswith("Default: 5m.")
    assert scaling["properties"]["minReplicas"]["description"].endswith("Default: 0.")


def test_files_are_yaml_that_says_where_it_comes_from():
    for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
        assert path.read_text().startswith("# Generated")
        assert yaml.safe_load(path.read_text())["kind"] == "CustomResourceDefinition"
