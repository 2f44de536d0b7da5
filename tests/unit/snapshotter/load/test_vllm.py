"""vLLM's load format, against vLLM's loader interface: the installed one, and one recorded.

The recorded interface is that of vLLM 0.33.0 and always runs. The tests against vLLM itself run
where it can be imported, a GPU is not needed: `uv pip install vllm` into an environment of its
own, with the test dependencies, and pytest on this file.
"""

import importlib.metadata
import importlib.util
import inspect
import sys
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from glowplug_snapshotter import SnapshotError, vllm_loader
from glowplug_snapshotter.loading import weights

from .models import Spec, write_safetensors, write_snapshot

PARAMETERS = {
    "__init__": ["self", "load_config"],
    "download_model": ["self", "model_config"],
    "load_weights": ["self", "model", "model_config"],
}
SPECS: list[Spec] = [("a", "F32", (4, 3)), ("b", "F32", (5,)), ("rotary", "F32", (2,))]
needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="needs vLLM: uv pip install vllm in an environment of its own, and run this file there",
)


class RecordedBase(ABC):
    """What vLLM 0.33.0 asks of a loader."""

    def __init__(self, load_config: object) -> None:
        self.load_config = load_config

    @abstractmethod
    def download_model(self, model_config: object) -> None: ...

    @abstractmethod
    def load_weights(self, model: object, model_config: object) -> None: ...


class FakeTensor(np.ndarray):
    """As much of a tensor as handing over asks of torch."""

    def view(self, *what: object) -> np.ndarray:
        return self.reshape(what[0]) if isinstance(what[0], tuple) else super().view(*what)


class FakeModel:
    def __init__(self) -> None:
        self.loaded: dict[str, object] = {}

    def parameters(self) -> Iterable[object]:
        return [SimpleNamespace(device="meta"), SimpleNamespace(device="cpu")]

    def is_unused_checkpoint_weight(self, name: str) -> bool:
        return name == "rotary"

    def load_weights(self, arriving: Iterable[tuple[str, np.ndarray]]) -> set[str]:
        self.loaded = {name: np.array(tensor) for name, tensor in arriving}
        return set(self.loaded)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """Stand in for vLLM as recorded, and for torch; return the registry of load formats."""
    registry: dict[str, type] = {}

    def register_model_loader(load_format: str) -> Callable[[type], type]:
        def wrapper(loader: type) -> type:
            if not issubclass(loader, RecordedBase):
                raise ValueError("The model loader must be a subclass of `BaseModelLoader`.")
            registry[load_format] = loader
            return loader

        return wrapper

    loaders = ModuleType("vllm.model_executor.model_loader")
    loaders.BaseModelLoader = RecordedBase
    loaders.register_model_loader = register_model_loader
    state = ModuleType("vllm.distributed.parallel_state")
    state.model_parallel_is_initialized = lambda: False
    torch = ModuleType("torch")
    torch.from_dlpack = lambda exporter: np.from_dlpack(exporter).view(FakeTensor)
    torch.float32 = np.float32
    for module in (loaders, state, torch):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return registry


def config(**options: object) -> SimpleNamespace:
    return SimpleNamespace(model_loader_extra_config=options)


def test_the_recorded_interface_is_met(recorded: dict[str, type], tmp_path: Path) -> None:
    vllm_loader.register()
    vllm_loader.register()  # vLLM may load plugins more than once
    loader = recorded["glowplug"]
    for name, parameters in PARAMETERS.items():
        assert list(inspect.signature(getattr(loader, name)).parameters) == parameters
    data = write_safetensors(tmp_path / "m" / "model.safetensors", SPECS)
    uri = write_snapshot(tmp_path / "m", tmp_path / "store")
    for options, model in (({"uri": uri}, "unused"), ({}, str(tmp_path / "m"))):
        target = FakeModel()
        made = loader(config(**options))
        assert made.load_config.model_loader_extra_config == options
        model_config = SimpleNamespace(model=model, revision=None)
        made.download_model(model_config)
        made.load_weights(target, model_config)
        got = {name: tensor.tobytes() for name, tensor in target.loaded.items()}
        assert got == {"a": data["a"], "b": data["b"]}
        assert target.loaded["a"].shape == (4, 3)


def test_damage_stops_the_engine_from_starting(
    recorded: dict[str, type], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glowplug_snapshotter.retry.FIRST_PAUSE", 0.001)
    write_safetensors(tmp_path / "m" / "model.safetensors", SPECS)
    uri = write_snapshot(tmp_path / "m", tmp_path / "store")
    [blob] = (tmp_path / "store" / "blobs").iterdir()
    damaged = bytearray(blob.read_bytes())
    damaged[-1] ^= 1
    blob.write_bytes(damaged)
    vllm_loader.register()
    loader = recorded["glowplug"](config(uri=uri))
    with pytest.raises(SnapshotError, match="does not match its checksum"):
        loader.load_weights(FakeModel(), SimpleNamespace(model="unused", revision=None))


def test_a_model_that_reads_files_of_its_own_choice_is_refused(recorded: dict[str, type]) -> None:
    vllm_loader.register()
    model = FakeModel()
    model.secondary_weights = ["more"]
    with pytest.raises(ValueError, match=r"FakeModel reads files of its own.*safetensors"):
        recorded["glowplug"](config()).load_weights(model, None)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"url": "s3://b/p"}, "has the key 'url'"),
        ({"digest": 7}, "digest is 7"),
        ("x", "give an object"),
    ],
)
def test_options_that_are_wrong_are_named(extra: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vllm_loader.options_of(extra)


@pytest.mark.parametrize(
    ("model", "revision", "kept", "address"),
    [
        ("/", None, "", "/"),
        ("org/name", None, "", "hf://org/name"),
        ("org/name", "abc", "", "hf://org/name@abc"),
        ("/tmp/copy", None, "s3://bucket/model", "s3://bucket/model"),
    ],
)
def test_where_weights_are_without_a_uri(
    model: str, revision: str | None, kept: str, address: str
) -> None:
    found = SimpleNamespace(model=model, revision=revision, model_weights=kept)
    assert vllm_loader.address_of(found) == address


def test_the_distribution_names_the_plugin() -> None:
    project = Path(weights.__file__).parents[2] / "pyproject.toml"
    groups = tomllib.loads(project.read_text())["project"]["entry-points"]
    [(name, value)] = groups["vllm.general_plugins"].items()
    entry = importlib.metadata.EntryPoint(name, value, "vllm.general_plugins")
    assert entry.load() is vllm_loader.register


@needs_vllm
def test_the_installed_interface_is_the_recorded_one() -> None:
    from vllm.model_executor.model_loader import BaseModelLoader, register_model_loader

    assert BaseModelLoader.__abstractmethods__ == {"download_model", "load_weights"}
    for name, parameters in PARAMETERS.items():
        assert list(inspect.signature(getattr(BaseModelLoader, name)).parameters) == parameters
    assert list(inspect.signature(register_model_loader).parameters) == ["load_format"]


@needs_vllm
def test_vllm_loads_a_module_with_it(tmp_path: Path) -> None:
    import torch
    from vllm.config.load import LoadConfig
    from vllm.model_executor.model_loader import get_model_loader
    from vllm.model_executor.models.utils import AutoWeightsLoader

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(70, 300, dtype=torch.bfloat16)
            self.second = torch.nn.Linear(300, 3)

        def load_weights(self, arriving: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
            return AutoWeightsLoader(self).load_weights(arriving)

    specs = [
        ("first.weight", "BF16", (300, 70)),
        ("first.bias", "BF16", (300,)),
        ("second.weight", "F32", (3, 300)),
        ("second.bias", "F32", (3,)),
    ]
    data = write_safetensors(tmp_path / "m" / "model.safetensors", specs)
    uri = write_snapshot(tmp_path / "m", tmp_path / "store", chunk_size=4096)
    vllm_loader.register()
    loader = get_model_loader(
        LoadConfig(load_format="glowplug", model_loader_extra_config={"uri": uri})
    )
    net = Net()
    loader.load_weights(net, SimpleNamespace(model="unused", revision=None))
    for name, parameter in net.named_parameters():
        assert parameter.detach().view(-1).view(torch.uint8).numpy().tobytes() == data[name]
