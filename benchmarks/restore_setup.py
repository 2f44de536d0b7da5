"""What benchmarks/restore.py needs: a model with its snapshot, two stores, the peers' Python."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import numpy as np
from blake3 import blake3
from botocore.config import Config
from crc32c import crc32c
from servers import await_answer, end

from glowplug_snapshotter import manifest
from glowplug_snapshotter.destinations.directory import JOURNAL, PARTIAL
from glowplug_snapshotter.destinations.journal import Journal
from glowplug_snapshotter.plan import blob_key, manifest_key, plan_snapshot
from glowplug_snapshotter.tensors import HeaderReader

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
BUCKET = "store"
TENSORS = (64 * MIB, 32 * MIB, 32 * MIB, 4 * MIB, 16 << 10)  # bytes, again and again, of BF16
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret"}
NGINX = """
daemon off; worker_processes auto; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {root}; default_type application/octet-stream; }}
}}
"""


@dataclass(frozen=True)
class Model:
    """A model's safetensors in `files`, and a snapshot of them, linked, in `store`."""

    folder: Path
    entries: tuple[manifest.File, ...]
    digest: str

    @property
    def store(self) -> Path:
        """Return the snapshot store's folder, named as the bucket is."""
        return self.folder / BUCKET

    @property
    def files(self) -> list[Path]:
        """Return the shards, in the manifest's order."""
        return [self.folder / "files" / entry.path for entry in self.entries]

    @property
    def size(self) -> int:
        """Return the shards' bytes."""
        return sum(entry.size for entry in self.entries)


def write_model(folder: Path, shards: int, shard: int) -> Model:
    """Write `shards` files of about `shard` bytes of random BF16."""
    (folder / "files").mkdir(parents=True)
    (folder / BUCKET / "blobs").mkdir(parents=True)
    entries = []
    for number in range(shards):
        path = folder / "files" / f"model-{number + 1:05}-of-{shards:05}.safetensors"
        write_shard(path, number, shard)
        whole, crcs, header = blake3(), [], HeaderReader(path.stat().st_size)
        with open(path, "rb") as file:
            while chunk := file.read(manifest.CHUNK_SIZE):
                whole.update(chunk)
                crcs.append(crc32c(chunk))
                header.feed(chunk)
            os.fsync(file.fileno())
        digest = whole.hexdigest()
        os.link(path, folder / BUCKET / blob_key(digest))
        size = path.stat().st_size
        entries.append(manifest.File(path.name, size, digest, tuple(crcs), header.tensors()))
    data = manifest.encode(manifest.Manifest("file:///", None, tuple(entries)))
    digest = manifest.digest_of(data)
    place = folder / BUCKET / manifest_key(digest)
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    return Model(folder, tuple(entries), digest)


def write_shard(path: Path, seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    header: dict[str, object] = {}
    at = 0
    while at + sum(TENSORS) <= size:
        for length in TENSORS:
            place = {"dtype": "BF16", "shape": [length // 2], "data_offsets": [at, at + length]}
            header[f"{path.stem}.{len(header)}"] = place
            at += length
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for begin in range(0, at, 16 * MIB):
            file.write(random.bytes(min(16 * MIB, at - begin)))


def touch_files(model: Model, endpoint: str, to: Path, *, ours: bool) -> None:
    """Lay files of the model's sizes into `to`, every page written; for ours, as left by a kill.

    Ours writes into files that were there only where a journal says that a restore of the same
    plan was cut off: this one was, before its first chunk.
    """
    folder = to / PARTIAL if ours else to
    folder.mkdir(exist_ok=True)
    zeros = bytes(16 * MIB)
    for entry in model.entries:
        with open(folder / (entry.path if ours else entry.blake3), "wb") as file:
            for at in range(0, entry.size, len(zeros)):
                file.write(zeros[: entry.size - at])
            file.flush()
            os.fsync(file.fileno())
    if ours:
        plan = plan_snapshot(f"s3://{BUCKET}", model.digest, f"http://{endpoint}")
        paths = tuple(item.path for item in plan.items)
        Journal.create(to / JOURNAL, plan.fingerprint, paths).close()
        plan.reader.close()


def differs(model: Model, to: Path, *, ours: bool, headers: bool) -> str | None:
    """Compare a page of each MiB with the model's; return what is wrong. `headers`: those too."""
    for entry, source in zip(model.entries, model.files, strict=True):
        path = to / (entry.path if ours else entry.blake3)
        if not path.exists() or path.stat().st_size != entry.size:
            return f"{path.name} is not whole"
        first = 0 if headers else MIB
        with open(path, "rb") as got, open(source, "rb") as wanted:
            for at in range(first, entry.size, MIB):
                got.seek(at)
                wanted.seek(at)
                if got.read(4096) != wanted.read(4096):
                    return f"{path.name} differs at {at}"
    return None


def warm(paths: list[Path]) -> None:
    """Have files in the page cache."""
    buffer = bytearray(4 * MIB)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop(paths: list[Path]) -> None:
    """Have them out of it."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def nginx(folder: Path, model: Model) -> Iterator[str]:
    """Serve the model's folder; yields host:port."""
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, root=model.folder, port=port))
    command = ["nginx", "-c", str(config), "-e", str(folder / "error.log"), "-g", "user root;"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        await_answer(f"http://127.0.0.1:{port}/", server, 120)
        yield f"127.0.0.1:{port}"
    finally:
        end(server)


@contextlib.contextmanager
def weed(folder: Path, model: Model) -> Iterator[str]:
    """Run SeaweedFS with a bucket that holds the same store; yields its S3 host:port."""
    folder.mkdir()
    flags = []
    for name in ("master", "volume", "filer", "s3"):
        flags += [f"-{name}.port={free_port()}", f"-{name}.port.grpc={free_port()}"]
    endpoint = f"127.0.0.1:{flags[6].partition('=')[2]}"
    program = Path(sys.executable).with_name("weed")
    words = [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", *flags]
    words += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-iam.port=0", "-master.telemetry=false"]
    words += ["-volume.max=100", "-master.volumeSizeLimitMB=4096"]
    (folder / "identities.json").write_text(json.dumps(identities()))
    words += [f"-s3.config={folder}/identities.json"]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen([program, "server", *words], stdout=log, stderr=log)
    try:
        await_answer(f"http://{endpoint}/", server, 120)
        fill(endpoint, model)
        yield endpoint
    finally:
        server.kill()  # its data are temporary, and a clean stop takes it 20 s
        server.wait()


def identities() -> dict[str, object]:
    key = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    anyone = {"name": "anonymous", "actions": ["Read", "List"]}  # for the plain receiver
    return {"identities": [{"name": "bench", "credentials": [key], "actions": actions}, anyone]}


def fill(endpoint: str, model: Model) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=f"http://{endpoint}",
        region_name="us-east-1",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 8}),
    )
    deadline = time.monotonic() + 120
    while True:
        try:
            s3.create_bucket(Bucket=BUCKET)
            break
        except Exception:  # its parts come up one after the other
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
    for path in sorted(path for path in model.store.rglob("*") if path.is_file()):
        s3.upload_file(str(path), BUCKET, path.relative_to(model.store).as_posix())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def peers_python() -> tuple[Path | None, str]:
    """Return the Python of the peers' environment, made from peers.txt once, or why there is none.

    It takes 6 GB: torch from the package index brings CUDA along.
    """
    lock = HERE / "peers.txt"
    cache = Path(os.environ.get("GLOWPLUG_CACHE", Path.home() / ".cache" / "glowplug"))
    place = cache / f"peers-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python, ready = place / "bin" / "python", place / ".ready"
    if ready.exists():
        return python, ""
    uv = str(Path(sys.executable).with_name("uv"))
    make = [uv, "venv", "--clear", "--python", sys.executable, str(place)]
    fill = [uv, "pip", "install", "--python", str(python), "--require-hashes", "-r", str(lock)]
    for command in (make, fill):
        print("Making the peers' environment:", *command, file=sys.stderr)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return None, f"its environment could not be made: {done.stderr.strip()[-200:]}"
    ready.touch()
    return python, ""
