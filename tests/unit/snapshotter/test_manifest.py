"""The manifest: canonical bytes, and nothing malformed gets through."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save, save_file

from glowplug_snapshotter.errors import SnapshotError
from glowplug_snapshotter.manifest import File, Manifest, decode, digest_of, encode
from glowplug_snapshotter.tensors import HeaderReader

names = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1).filter(
    lambda part: part not in (".", "..")
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
crcs = st.integers(0, 2**32 - 1)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)


@st.composite
def files(draw: st.DrawFn) -> File:
    checks = draw(st.lists(crcs, max_size=4))
    size = max(0, len(checks) * 4096 - draw(st.integers(0, 4095))) if checks else 0
    return File(draw(paths), size, draw(hashes), tuple(checks))


@given(st.lists(files(), max_size=4, unique_by=lambda f: f.path), st.text())
def test_what_is_written_is_read_back_and_has_one_digest(found: list[File], source: str) -> None:
    manifest = Manifest(source, None, tuple(sorted(found, key=lambda f: f.path)), 4096)
    data = encode(manifest)
    assert decode(data, "here") == manifest
    shuffled = Manifest(source, None, tuple(reversed(manifest.files)), 4096)
    assert digest_of(encode(shuffled)) == digest_of(data)


def body(**changes: object) -> bytes:
    file = {"path": "a", "size": 5000, "blake3": "0" * 64, "crc32c": ["00000000", "00000001"]}
    file |= {k: v for k, v in changes.items() if k in (*file, "tensors")}
    rest = {"version": 1, "chunkSize": 4096, "source": {"url": "s3://b", "revision": None}}
    rest |= {k: v for k, v in changes.items() if k in rest}
    return json.dumps({**rest, "files": [file] * int(changes.get("times", 1))}).encode()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not a valid manifest"),
        (b"[]", "not a valid manifest"),
        (b"{}", "'version'"),
        (body()[:-20], "not a valid manifest"),
        (body(version=2), "newer glowplug-snapshotter"),
        (body(path="../etc/passwd"), "leaves the model's directory"),
        (body(path="/etc/passwd"), "leaves the model's directory"),
        (body(path="a/../../b"), "leaves the model's directory"),
        (body(path=""), "not a file's path"),
        (body(size=-1), "size"),
        (body(size=1 << 60), "size"),
        (body(size=9000), "2 checksums for 9000 bytes"),
        (body(size="5000"), "size"),
        (body(chunkSize=0), "chunkSize"),
        (body(blake3="../../x"), "blake3"),
        (body(times=2), "twice"),
        (body(tensors=[{"name": "t", "dtype": "F32", "shape": [1], "offsets": [0, 6000]}]), "'t'"),
    ],
)
def test_a_malformed_manifest_is_refused_with_a_sentence(data: bytes, word: str) -> None:
    with pytest.raises(SnapshotError, match=re.escape("s3://b/manifest.json")) as caught:
        decode(data, "s3://b/manifest.json")
    assert caught.value.reason == "InvalidManifest"
    assert word in caught.value.message


@given(step=st.integers(1, 700))
def test_tensors_are_those_that_safetensors_itself_reads(
    step: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    save_file({f"t{n}": np.full((n, 3), n, np.float16) for n in range(8)}, path)
    data = path.read_bytes()
    reader = HeaderReader(len(data))
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    with safe_open(path, "numpy") as file:
        for tensor in reader.tensors():
            expected = file.get_tensor(tensor.name)
            assert tensor.shape == expected.shape
            assert data[tensor.begin : tensor.end] == expected.tobytes()
        assert {t.name for t in reader.tensors()} == set(file.keys())


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 64, save({"a": np.zeros(4)})[:20]])
def test_a_file_that_is_not_safetensors_is_noticed(data: bytes) -> None:
    reader = HeaderReader(len(data))
    with pytest.raises(ValueError, match="header"):
        read(reader, data)


def read(reader: HeaderReader, data: bytes) -> None:
    reader.feed(data)
    reader.tensors()
