"""From an object as the API server gives it to a model, or to sentences that say what is wrong."""

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from glowplug.api.base import Object
from glowplug.api.deployment import ModelDeployment
from glowplug.api.fields import WIRE
from glowplug.api.pool import GPUPool
from glowplug.api.snapshot import ModelSnapshot

KINDS: Mapping[str, type[Object]] = {
    kind.kind: kind for kind in (ModelDeployment, ModelSnapshot, GPUPool)
}

K = TypeVar("K", bound=Object)


class InvalidObject(ValueError):  # noqa: N818
    """An object that breaks the rules of its kind; each problem names the field."""

    def __init__(self, kind: str, name: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"{kind} {name} is invalid: {'; '.join(problems)}")
        self.kind = kind
        self.name = name
        self.problems = problems


@overload
def parse(kind: type[K], body: Mapping[str, Any]) -> K: ...
@overload
def parse(kind: str, body: Mapping[str, Any]) -> Object: ...
def parse(kind: type[K] | str, body: Mapping[str, Any]) -> K | Object:
    """Read an object of a kind (the class or its name) at least as strictly as the API server.

    Raises InvalidObject, which lists every problem with the path of its field.
    """
    model: type[Object] = _kind(kind) if isinstance(kind, str) else kind
    try:
        return model.model_validate(dict(body), context={WIRE: True})
    except ValidationError as error:
        problems = tuple(_problem(_path(e), e["msg"]) for e in error.errors(include_url=False))
        raise InvalidObject(model.kind, _name(body), problems) from None


def _kind(name: str) -> type[Object]:
    if name not in KINDS:
        raise InvalidObject(name, "", (f"kind must be one of {', '.join(KINDS)}; got {name!r}",))
    return KINDS[name]


def _path(error: ErrorDetails) -> tuple[int | str, ...]:
    blamed = error.get("ctx", {}).get("field")
    return (*error["loc"], blamed) if blamed else error["loc"]


def _problem(path: tuple[int | str, ...], message: str) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return f"{text.lstrip('.') or 'object'}: {message.removeprefix('Value error, ')}"


def _name(body: Mapping[str, Any]) -> str:
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping):
        return ""
    return "/".join(str(metadata[k]) for k in ("namespace", "name") if metadata.get(k))
