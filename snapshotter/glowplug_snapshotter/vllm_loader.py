"""vLLM's load format `glowplug`: tensors go from the snapshot to the model's device as they arrive.

vLLM finds `register` by the entry point group `vllm.general_plugins`. Its loader class derives
from vLLM's own, so vLLM and torch are imported only there.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from typing import Protocol, cast

from glowplug_snapshotter.loading.tensor import TorchTensor, torch_type
from glowplug_snapshotter.loading.weights import Weights, open_weights

FORMAT = "glowplug"
OPTIONS = ("uri", "digest", "endpoint", "cache")


class LoadConfig(Protocol):
    """What is used of vLLM's."""

    @property
    def model_loader_extra_config(self) -> object:
        """Return what --model-loader-extra-config holds."""


class ModelConfig(Protocol):
    """What is used of vLLM's."""

    @property
    def model(self) -> str:
        """Return the directory or the hub's name of the model."""

    @property
    def revision(self) -> str | None:
        """Return the hub's revision."""


class Parameter(Protocol):
    """What is used of a model's parameter."""

    @property
    def device(self) -> object:
        """Return where it is."""


class Model(Protocol):
    """What is used of a model."""

    def parameters(self) -> Iterable[Parameter]:
        """Return its parameters."""

    def load_weights(self, weights: Iterable[tuple[str, TorchTensor]]) -> object:
        """Take the weights in."""


class Group(Protocol):
    """The ranks that hold a model together (vLLM's GroupCoordinator)."""

    rank_in_group: int
    world_size: int
    ranks: list[int]
    device_group: object


class GlowplugLoader:
    """The methods that vLLM's BaseModelLoader leaves open."""

    def __init__(self, load_config: LoadConfig) -> None:
        super().__init__(load_config)  # type: ignore[call-arg]  # vLLM's base comes behind
        self._options = options_of(load_config.model_loader_extra_config)

    def download_model(self, model_config: ModelConfig) -> None:
        """Do nothing: no file is needed on disk."""

    def load_weights(self, model: Model, model_config: ModelConfig) -> None:
        """Fill the model, each byte proved where there is a snapshot. Raises SnapshotError."""
        for special in ("secondary_weights", "allow_patterns_overrides"):
            if getattr(model, special, None):
                raise ValueError(
                    f"{type(model).__name__} reads files of its own choice ({special}), which the "
                    f"load format {FORMAT} does not know: use --load-format safetensors."
                )
        unused = cast("Callable[[str], bool] | None", getattr(model, UNUSED, None))
        weights = open_weights(
            self._options.get("uri") or address_of(model_config),
            digest=self._options.get("digest"),
            endpoint=self._options.get("endpoint"),
            cache=self._options.get("cache"),
        )
        arriving = tensors(weights, device_of(model), unused, tensor_parallel_group())
        with closing(arriving):
            model.load_weights(arriving)


UNUSED = "is_unused_checkpoint_weight"


def register() -> None:
    """Tell vLLM of the load format; telling it again changes nothing."""
    loaders = importlib.import_module("vllm.model_executor.model_loader")
    base = loaders.BaseModelLoader
    loader = type("GlowplugModelLoader", (GlowplugLoader, base), {})
    loaders.register_model_loader(FORMAT)(loader)


def options_of(extra: object) -> Mapping[str, str]:
    """Check --model-loader-extra-config. Raises ValueError that names the key."""
    if not isinstance(extra, Mapping):
        raise ValueError(f"model_loader_extra_config is {extra!r}: give an object")
    for key, value in extra.items():
        if key not in OPTIONS:
            raise ValueError(
                f"model_loader_extra_config has the key {key!r}; the load format {FORMAT} knows "
                f"{', '.join(OPTIONS)}"
            )
        if not isinstance(value, str):
            raise ValueError(f"model_loader_extra_config: {key} is {value!r}, expected a string")
    return extra


def address_of(model_config: ModelConfig) -> str:
    """Return where the model's own name leads: a directory, a URL, or the hub."""
    # vLLM keeps a bucket's URL in `model_weights` and puts a local copy's path into `model`.
    name = str(getattr(model_config, "model_weights", None) or model_config.model)
    if "://" in name or os.path.isdir(name):
        return name
    return f"hf://{name}@{model_config.revision}" if model_config.revision else f"hf://{name}"


def device_of(model: Model) -> str:
    """Return where the model's parameters are; vLLM's default for one without any yet."""
    for parameter in model.parameters():
        if str(parameter.device) != "meta":
            return str(parameter.device)
    return str(importlib.import_module("torch").get_default_device())


def tensor_parallel_group() -> Group | None:
    """Return the ranks that need the same tensors as this one, None when it is alone."""
    state = importlib.import_module("vllm.distributed.parallel_state")
    if not state.model_parallel_is_initialized():
        return None
    group = cast(Group, state.get_tp_group())
    return group if group.world_size > 1 else None


def tensors(
    weights: Weights, device: str, unused: Callable[[str], bool] | None, group: Group | None
) -> Generator[tuple[str, TorchTensor], None, None]:
    """Yield all tensors on every rank, each read by one of them and broadcast to the others.

    So the store and the links to the GPUs carry the model once, whatever the number of ranks.
    """
    select = None if unused is None else (lambda name: not unused(name))
    rank, world = (0, 1) if group is None else (group.rank_in_group, group.world_size)
    mine = weights.load(device, framework="torch", select=select, rank=rank, world=world)
    arriving = cast(Generator[tuple[str, TorchTensor], None, None], mine)
    if group is None:
        yield from arriving
        return
    torch = importlib.import_module("torch")
    try:
        for tensor, owner in weights.shares(world, select):
            if owner == rank:
                value = next(arriving)[1]
            else:
                dtype, shape = torch_type(torch, tensor.name, tensor.dtype, tensor.shape)
                value = torch.empty(shape, dtype=dtype, device=device)
            if tensor.end > tensor.begin:
                data = value.view(-1).view(torch.uint8)  # not every back end knows every dtype
                torch.distributed.broadcast(data, group.ranks[owner], group=group.device_group)
            yield tensor.name, value
    finally:
        arriving.close()
