"""Field types with a written form: durations ("5m"), quantities ("16Gi"), percentages ("99%").

In YAML and in the API server they are strings, checked there by pattern and CEL; in Python they
are seconds, bytes and fractions. Code and tests may also pass the number itself; an object read
from the API server (`parse`) may not, because the API server would refuse it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, TypeVar, cast

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    Strict,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

WIRE = "wire"
"""Key of the validation context that `parse` sets: only the written forms are accepted."""

DURATION = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
PERCENT = r"^[1-9][0-9]?(\.[0-9]{1,3})?%$"

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15} | {
    f"{prefix}i": 2 ** (10 * power) for power, prefix in enumerate("KMGTP", start=1)
}


def parse_duration(text: str) -> float:
    """Seconds of a duration such as "90s", "1h30m" or "1.5s"; ValueError when it is none."""
    if not re.fullmatch(DURATION[1:-1], text, re.ASCII):
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m or 1h30m")
    parts = re.findall(r"([0-9.]+)(ms|s|m|h)", text)
    return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in parts))


def parse_quantity(text: str) -> int:
    """Bytes of a quantity such as "16Gi" or "500M"; ValueError when it is none."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kMGTP]?|[KMGTP]i)", text, re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 16Gi or 500M")
    return int(Decimal(match[1]) * _BYTES[match[2]])


def parse_percent(text: str) -> float:
    """Fraction of a percentage from "1%" to "99.999%"; ValueError when it is none."""
    if not re.fullmatch(PERCENT[1:-1], text, re.ASCII):
        raise ValueError(f"{text!r} is not a percentage such as 99% or 99.5%")
    return float(Decimal(text[:-1]) / 100)


@dataclass(frozen=True, slots=True)
class _Written:
    """A number between two bounds that is written as a string."""

    noun: str
    low: str
    high: str
    pattern: str
    max_length: int
    read: Callable[[str], float]
    cel: str  # with {pattern}, {low} and {high}
    whole: bool = False

    @property
    def sentence(self) -> str:
        return f"must be a {self.noun} between {self.low} and {self.high}"

    def _validate(self, value: Any, info: ValidationInfo) -> float | int:
        written = isinstance(value, str)
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not written and (not numeric or (info.context or {}).get(WIRE)):
            raise ValueError(f"{self.sentence}, written as a string; got {value!r}")
        try:
            number = self._read(value)
        except ValueError as problem:
            raise ValueError(f"{self.sentence}; {problem}") from None
        if not self.read(self.low) <= number <= self.read(self.high):
            raise ValueError(f"{self.sentence}; got {value!r}")
        return int(number) if self.whole else float(number)

    def _read(self, value: str | float) -> float:
        if not isinstance(value, str):
            return value
        if len(value) > self.max_length:
            raise ValueError(f"it is longer than {self.max_length} characters")
        return self.read(value)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        rule = self.cel.format(
            pattern=self.pattern.replace("\\", "\\\\"), low=self.low, high=self.high
        )
        return {
            "type": "string",
            "pattern": self.pattern,
            "maxLength": self.max_length,
            "x-kubernetes-validations": [{"rule": rule, "message": self.sentence}],
        }


def duration(low: str, high: str) -> Any:
    """Metadata of a float field: seconds, written as a duration between the two bounds."""
    cel = (
        "self.matches('{pattern}') && duration(self) >= duration('{low}')"
        " && duration(self) <= duration('{high}')"
    )
    return _Written("duration", low, high, DURATION, 20, parse_duration, cel)


def quantity(low: str, high: str) -> Any:
    """Metadata of an int field: bytes, written as a quantity between the two bounds."""
    cel = (
        "self.matches('{pattern}') && !quantity(self).isLessThan(quantity('{low}'))"
        " && !quantity(self).isGreaterThan(quantity('{high}'))"
    )
    return _Written("quantity", low, high, QUANTITY, 20, parse_quantity, cel, whole=True)


def percent() -> Any:
    """Metadata of a float field: a fraction, written as a percentage."""
    cel = "self.matches('{pattern}')"
    return _Written("percentage", "1%", "99.999%", PERCENT, 8, parse_percent, cel)


_AMOUNT = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"


def _amount(value: Any) -> int | str:
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    text = isinstance(value, str) and len(value) <= 32 and re.fullmatch(_AMOUNT[1:-1], value)
    if not number and not text:
        raise ValueError(f"must be an amount such as 2, 500m or 8Gi; got {value!r}")
    return cast(int | str, value)


Amount = Annotated[
    int | str,
    PlainValidator(_amount),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 32, "pattern": _AMOUNT}),
]
"""An amount of a resource, kept as it is written."""

T = TypeVar("T")

Items = Annotated[tuple[T, ...], Strict(False)]
"""A YAML list, kept as a tuple."""

Short = Annotated[str, Field(min_length=1, max_length=253)]
Line = Annotated[str, Field(max_length=4096)]
DNSLabel = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
DNSSubdomain = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
HTTPPath = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^/[-A-Za-z0-9._~/]*$")]
Labels = Annotated[
    dict[str, Annotated[str, Field(max_length=63)]],
    Field(max_length=32),
]
Anything = Annotated[
    dict[str, Any],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""An object that somebody else validates."""
