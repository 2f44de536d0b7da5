"""Names that clients use -> models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from glowplug.gateway.model import ServedModel
from glowplug.gateway.refusal import Refusal


class Directory:
    """Every model this gateway serves, by key and by served name."""

    def __init__(self) -> None:
        self._by_key: dict[str, ServedModel] = {}
        self._by_served: defaultdict[str, dict[str, ServedModel]] = defaultdict(dict)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._by_key.values())

    def get(self, key: str) -> ServedModel | None:
        """The model of that key, or None."""
        return self._by_key.get(key)

    def put(self, model: ServedModel) -> None:
        """Add a model or replace its older state."""
        self.remove(model.key)
        self._by_key[model.key] = model
        self._by_served[model.served_name][model.key] = model

    def remove(self, key: str) -> None:
        """Forget a model."""
        model = self._by_key.pop(key, None)
        if model is not None:
            same = self._by_served[model.served_name]
            same.pop(key, None)
            if not same:
                del self._by_served[model.served_name]

    def resolve(self, name: str) -> ServedModel:
        """The model a client means. Raises Refusal.

        `namespace/name` comes first: a served name that looks like another's key takes nothing.
        """
        model = self._by_key.get(name)
        if model is not None:
            return model
        same = self._by_served.get(name)
        if not same:
            raise Refusal(
                404,
                f"The model '{name}' does not exist. GET /v1/models lists the models served here; "
                "use one of its ids, or 'namespace/name' of a ModelDeployment.",
                code="model_not_found",
                param="model",
            )
        if len(same) > 1:
            choices = " or ".join(f"'{key}'" for key in sorted(same))
            raise Refusal(
                400,
                f"The model '{name}' is served in {len(same)} namespaces. Ask for {choices}.",
                code="ambiguous_model",
                param="model",
            )
        return next(iter(same.values()))

    def public_name(self, model: ServedModel) -> str:
        """The shortest name that means this model and no other."""
        alone = len(self._by_served[model.served_name]) == 1
        shadowed = self._by_key.get(model.served_name) not in (None, model)
        return model.served_name if alone and not shadowed else model.key
