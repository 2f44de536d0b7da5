"""What all kinds share: camelCase names, metadata, and rules that hold in CEL and in Python."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from glowplug.api.fields import WIRE


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule between fields, for the API server (`cel`) and for Python (`holds`).

    The two are written side by side, so that they are changed together.
    """

    message: str
    cel: str | None  # None where the schema already makes the API server refuse it
    holds: Callable[[Any], bool]
    field: str | None = None  # which field to blame, as it is written in YAML


def cel_rules(rules: tuple[Rule, ...]) -> list[dict[str, str]]:
    """The rules as `x-kubernetes-validations`."""
    return [
        {"rule": rule.cel, "message": rule.message}
        | ({"fieldPath": f".{rule.field}"} if rule.field else {})
        for rule in rules
        if rule.cel is not None
    ]


class Part(BaseModel):
    """A part of a spec: immutable, strict about types, snake_case here and camelCase in YAML."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",  # a newer CRD may hold fields that this version does not know
        str_strip_whitespace=False,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        result = handler(schema)
        if rules := cel_rules(cls.rules):
            handler.resolve_ref_schema(result)["x-kubernetes-validations"] = rules
        return result

    @model_validator(mode="before")
    @classmethod
    def _refuse_null(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, dict) and (info.context or {}).get(WIRE):
            names = {field.alias for field in cls.model_fields.values()}
            for key in sorted(names & value.keys(), key=str):
                if value[key] is None:
                    raise PydanticCustomError(
                        "null", "{key} must not be null: leave it out instead", {"key": str(key)}
                    )
        return value

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                # The braces keep pydantic from reading the sentence as a template.
                raise PydanticCustomError(
                    "rule", "{sentence}", {"sentence": rule.message, "field": rule.field}
                )
        return self


class Metadata(Part):
    """The part of ObjectMeta that Glowplug reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


_NAME = "[a-z]([-a-z0-9]{0,46}[a-z0-9])?"

NAME_RULE = Rule(
    message=(
        "metadata.name must start with a letter, hold only a-z, 0-9 and '-', and have at most "
        "48 characters: Pods, Services and labels are named after it"
    ),
    cel=f"self.metadata.name.matches('^{_NAME}$')",
    holds=lambda self: re.fullmatch(_NAME, self.metadata.name) is not None,
)


class Object(Part):
    """A kind: metadata, spec and status, with what the CRD needs beside the schema."""

    kind: ClassVar[str]
    plural: ClassVar[str]
    short_name: ClassVar[str]
    namespaced: ClassVar[bool] = True
    status_model: ClassVar[type[BaseModel]]
    columns: ClassVar[tuple[tuple[str, str, str, str], ...]]
    """Printer columns: name, type, JSONPath, description."""
    scale: ClassVar[dict[str, str] | None] = None

    metadata: Metadata
    status: dict[str, Any] = Field(default_factory=dict)
    """As read: written by the operator only, so nothing here depends on its form."""

    @property
    def key(self) -> str:
        """namespace/name, or the name of a cluster-scoped object."""
        m = self.metadata
        return f"{m.namespace}/{m.name}" if self.namespaced else m.name
