"""`python -m reference`: docs/reference.md from crds/*.yaml, so that the two cannot disagree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = ROOT / "docs" / "reference.md"
HEAD = """# Reference

Every field of every kind, written by `make crds` from the CRDs; `kubectl explain mdep.spec` says
the same. Conditions and their reasons are in [conditions.md](conditions.md).
"""

Schema = dict[str, Any]


def render(crds: list[Schema]) -> str:
    """Return the page."""
    return "\n".join([HEAD, *(line for crd in crds for line in kind(crd))])


def kind(crd: Schema) -> Iterator[str]:
    """Yield the lines about one kind."""
    spec, version = crd["spec"], crd["spec"]["versions"][0]
    names, schema = spec["names"], version["schema"]["openAPIV3Schema"]
    short = ", ".join(names.get("shortNames", []))
    yield f"## {names['kind']}\n"
    yield f"{schema.get('description', '')}\n"
    yield f"`{spec['group']}/{version['name']}`, {spec['scope'].lower()}, short name {short}.\n"
    for part in ("spec", "status"):
        yield from table(part, schema["properties"].get(part, {}))


def table(part: str, schema: Schema) -> Iterator[str]:
    """Yield the table of a part's fields, then the rules between them."""
    yield f"### {names_of(part, schema)}\n"
    yield "| field | type | what it is |\n|---|---|---|"
    for path, required, field in fields(part, schema):
        star = " (required)" if required else ""
        yield f"| `{path}`{star} | {type_of(field)} | {text_of(field)} |"
    rules = list(dict.fromkeys(messages(schema)))
    if rules:
        yield "\nRules:\n"
        yield from (f"- {rule}" for rule in rules)
    yield ""


def names_of(part: str, schema: Schema) -> str:
    """Return the heading of a part: its name, and what it is where that is said."""
    described = schema.get("description", "")
    return f"{part}: {described[0].lower()}{described[1:].rstrip('.')}" if described else part


def fields(path: str, schema: Schema) -> Iterator[tuple[str, bool, Schema]]:
    """Yield (path, required, schema) of every field below `schema`, parents first."""
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, name in required, field
        if field.get("type") == "array":
            yield from fields(f"{here}[]", field["items"])
        else:
            yield from fields(here, field)


def type_of(field: Schema) -> str:
    """Return the field's type with its bounds, in a few words."""
    if field.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {field['items'].get('type', 'object')}"
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f"{field['type']}, {low} to {high}"
    return str(field.get("type", "object"))


def text_of(field: Schema) -> str:
    """Return the description as one line of a table."""
    text = " ".join(field.get("description", "").split())
    if "default" in field:
        text += f" Default: {field['default']}."
    return text.replace("|", "\\|")


def messages(schema: Schema) -> Iterator[str]:
    """Yield the sentences of all CEL rules below."""
    for rule in schema.get("x-kubernetes-validations", []):
        yield rule["message"]
    for field in schema.get("properties", {}).values():
        yield from messages(field)
        yield from messages(field.get("items", {}))


def load() -> list[Schema]:
    """Read the CRDs of this tree."""
    return [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]


if __name__ == "__main__":
    TARGET.write_text(render(load()))
