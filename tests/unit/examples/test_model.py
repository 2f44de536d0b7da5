"""The conversion from GGUF: a small llama model, quantized as llama.cpp does, comes back whole."""

import io
import json
from pathlib import Path

import gguf
import model
import numpy as np
import pytest
from rich.console import Console
from safetensors import safe_open

HIDDEN, HEADS, KV_HEADS, LAYERS, VOCABULARY = 64, 4, 2, 2, 96
TOKENS = ["<|end|>", "<|start|>", *(f"t{i}" for i in range(VOCABULARY - 2))]
SHAPES = {
    "token_embd": (VOCABULARY, HIDDEN),
    "output_norm": (HIDDEN,),
    **{
        f"blk.{layer}.{part}": shape
        for layer in range(LAYERS)
        for part, shape in {
            "attn_norm": (HIDDEN,),
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (HIDDEN * KV_HEADS // HEADS, HIDDEN),
            "attn_v": (HIDDEN * KV_HEADS // HEADS, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_norm": (HIDDEN,),
            "ffn_gate": (2 * HIDDEN, HIDDEN),
            "ffn_up": (2 * HIDDEN, HIDDEN),
            "ffn_down": (HIDDEN, 2 * HIDDEN),
        }.items()
    },
}
QUIET = Console(file=io.StringIO())


def interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp stores them: the halves of each head interleaved for its rotary order."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """The weights in Hugging Face's order, by their GGUF names."""
    random = np.random.default_rng(7)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, np.ndarray]) -> Path:
    """The same model as a GGUF file, its matrices in Q4_1."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (VOCABULARY - 2))
    writer.add_token_merges(["t 1", "t 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages }}")
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, values in weights.items():
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.rpartition(".")[2])
        stored = interleaved(values, heads) if heads else values
        if values.ndim == 1:
            writer.add_tensor(f"{name}.weight", stored)
        else:
            packed = gguf.quants.quantize(stored, kind)
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    made = tmp_path_factory.mktemp("converted") / "tiny"
    model.convert(source, made, QUIET)
    return made


def read(folder: Path, name: str) -> np.ndarray:
    """A bf16 tensor of the folder as float32."""
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert file.get_slice(name).get_dtype() == "BF16"
    data = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])[name]
    first, last = (8 + length + offset for offset in entry["data_offsets"])
    bits = np.frombuffer(data[first:last], dtype=np.uint16).astype(np.uint32) << 16
    return bits.view(np.float32).reshape(entry["shape"])


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("token_embd", "model.embed_tokens.weight"),
        ("output_norm", "model.norm.weight"),
        ("blk.0.attn_q", "model.layers.0.self_attn.q_proj.weight"),
        ("blk.1.attn_k", "model.layers.1.self_attn.k_proj.weight"),
        ("blk.1.attn_v", "model.layers.1.self_attn.v_proj.weight"),
        ("blk.0.attn_output", "model.layers.0.self_attn.o_proj.weight"),
        ("blk.0.ffn_gate", "model.layers.0.mlp.gate_proj.weight"),
        ("blk.0.ffn_up", "model.layers.0.mlp.up_proj.weight"),
        ("blk.1.ffn_down", "model.layers.1.mlp.down_proj.weight"),
        ("blk.1.attn_norm", "model.layers.1.input_layernorm.weight"),
        ("blk.1.ffn_norm", "model.layers.1.post_attention_layernorm.weight"),
    ],
)
def test_weights_come_back_in_hugging_faces_order(
    folder: Path, weights: dict[str, np.ndarray], stored: str, name: str
) -> None:
    original = weights[stored]
    # Q4_1 has 16 levels over the range of 32 values; normal weights span about 5 there.
    tolerance = 0.01 * np.abs(original) if original.ndim == 1 else 0.25
    assert np.all(np.abs(read(folder, name) - original) <= tolerance)


def test_every_tensor_is_there_once(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert len(list(file.keys())) == len(SHAPES)


def test_the_configuration_describes_the_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    wanted = {
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 0,
    }
    assert {name: config[name] for name in wanted} == wanted


def test_control_tokens_are_special_and_the_template_comes_along(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    assert [t["content"] for t in tokenizer["added_tokens"]] == TOKENS[:2]
    assert tokenizer["model"]["vocab"] == {token: i for i, token in enumerate(TOKENS)}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == "{{ messages }}"
    assert config["eos_token"] == TOKENS[0]


def test_the_same_source_gives_the_same_bytes(source: Path, folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    model.convert(source, again, QUIET)
    files = sorted(path.name for path in folder.iterdir())
    assert files == sorted(path.name for path in again.iterdir())
    for name in files:
        assert (folder / name).read_bytes() == (again / name).read_bytes(), name


def test_a_failed_conversion_leaves_no_folder(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(model, "fetch_gguf", lambda _: source)
    monkeypatch.setattr(model, "save", fails)
    with pytest.raises(OSError, match="disk full"):
        model.ensure(tmp_path / "made", QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "fetch_gguf", lambda _: pytest.fail("it fetched the model again"))
    assert model.ensure(tmp_path, QUIET) == tmp_path
