"""Eight node caches start on one model together: how often is the store read, and how long is it?

Each node is a network namespace behind a link of 25 MB/s in both directions (tc tbf), the store an
nginx on the bridge with a link of no such limit. The nodes' disks are in memory: one disk under all
eight would be what is measured. All nodes ask their own cache for the whole model at the same
instant; `glowplug-snapshotter verify` reads it and proves every byte. The store's bytes are those
in nginx's log. Beside it, in turn: one node alone, which is what the link allows, and the same
eight without peers.

Needs root, iproute2, nginx and 5 GB in /dev/shm. The bridge, the namespaces and the links are made
here, in 198.18.77.0/24, and removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from crc32c import crc32c
from report import Report, arguments
from servers import await_answer, end

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.manifest import CHUNK_SIZE, File, Manifest
from glowplug_snapshotter.plan import blob_key, manifest_key

NODES = 8
RATE = 25_000_000  # bytes/s of each node's link, in each direction
SHARDS = (4 * 64 * 2**20, 4 * 64 * 2**20)  # bytes: 512 MiB in two files
BRIDGE, NET = "gpherd", "198.18.77"
STORE = f"{NET}.1:8080"
PORT, PEER_PORT = 9420, 9421
CASE = f"{NODES} nodes, {sum(SHARDS) >> 20} MiB, {RATE // 10**6} MB/s each"
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format bytes '$body_bytes_sent'; access_log {folder}/access.log bytes; sendfile on;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen {store}; root {folder}/store; }}
}}
"""


@dataclass(frozen=True)
class Node:
    """One namespace."""

    number: int
    folder: Path

    @property
    def space(self) -> str:
        """Return the namespace's name, which is its link's too."""
        return f"{BRIDGE}{self.number}"

    @property
    def address(self) -> str:
        """Return its address on the bridge."""
        return f"{NET}.{10 + self.number}"

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        """Start the snapshotter inside."""
        program = (sys.executable, "-m", "glowplug_snapshotter")
        command = ["ip", "netns", "exec", self.space, *program, *map(str, words)]
        with open(self.folder / f"log{self.number}", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)


def ip(*words: object) -> None:
    subprocess.run(["ip", *map(str, words)], check=True)


@contextlib.contextmanager
def network(folder: Path) -> Iterator[list[Node]]:
    """Make the bridge and the nodes, each behind its shaped link."""
    nodes = [Node(number, folder) for number in range(1, NODES + 1)]
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("address", "add", f"{NET}.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for node in nodes:
            ip("netns", "add", node.space)
            inside = ("-n", node.space)
            pair = ("type", "veth", "peer", "name", "eth0", "netns", node.space)
            ip("link", "add", node.space, *pair)
            ip("link", "set", node.space, "master", BRIDGE, "up")
            ip(*inside, "address", "add", f"{node.address}/24", "dev", "eth0")
            ip(*inside, "link", "set", "lo", "up")
            ip(*inside, "link", "set", "eth0", "up")
            shape = ["root", "tbf", "rate", f"{8 * RATE}bit", "burst", "256kb", "latency", "100ms"]
            tc = ["tc", "qdisc", "add", "dev"]
            subprocess.run([*tc, node.space, *shape], check=True)
            subprocess.run(["ip", "netns", "exec", node.space, *tc, "eth0", *shape], check=True)
        yield nodes
    finally:
        for node in nodes:
            subprocess.run(["ip", "netns", "delete", node.space], check=False, capture_output=True)
            subprocess.run(["ip", "link", "delete", node.space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)


@contextlib.contextmanager
def store(folder: Path) -> Iterator[Path]:
    """Serve the store; yields nginx's log, one line with the body's bytes for each answer."""
    for name in ("t1", "t2", "t3", "t4", "t5"):
        (folder / name).mkdir()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, store=STORE))
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-g", "user root;"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        await_answer(f"http://{STORE}/", server, 60)
        yield folder / "access.log"
    finally:
        end(server)


def publish(root: Path) -> str:
    """Write a snapshot of random shards into the store's folder; return its digest."""
    (root / "blobs").mkdir(parents=True)
    files = []
    for number, size in enumerate(SHARDS):
        source = random.Random(number)
        data = b"".join(source.randbytes(CHUNK_SIZE) for _ in range(size // CHUNK_SIZE))
        name = blake3(data).hexdigest()
        (root / blob_key(name)).write_bytes(data)
        crcs = (crc32c(data[at : at + CHUNK_SIZE]) for at in range(0, size, CHUNK_SIZE))
        files.append(File(f"model-{number}.safetensors", size, name, tuple(crcs)))
    body = manifests.encode(Manifest("random", None, tuple(files)))
    digest = manifests.digest_of(body)
    path = root / manifest_key(digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    return digest


@contextlib.contextmanager
def caches(nodes: list[Node], *, peers: bool) -> Iterator[None]:
    """Run an empty cache on each node."""
    addresses = ",".join(f"{node.address}:{PEER_PORT}" for node in nodes)
    daemons = []
    try:
        for node in nodes:
            directory = node.folder / f"cache{node.number}"
            shutil.rmtree(directory, ignore_errors=True)
            words: list[object] = ["--store", f"http://{STORE}", "--directory", directory]
            words += ["--budget", "2Gi", "--advertise", node.address]
            if peers:
                words += ["--peers", addresses, "--key-file", node.folder / "key"]
            daemons.append(node.start("cache", *words))
        for node, daemon in zip(nodes, daemons, strict=True):
            await_answer(f"http://{node.address}:{PEER_PORT}/healthz", daemon, 60)
        yield
    finally:
        for daemon in daemons:
            end(daemon)


def read(node: Node, digest: str) -> float:
    """Have a node read the whole model from its cache; return when it was done."""
    url = f"http://127.0.0.1:{PORT}"
    reader = node.start("verify", "--from", url, "--digest", digest)
    try:
        if reader.wait(600):
            raise RuntimeError(f"node {node.number} failed: see {node.folder}/log{node.number}")
    finally:
        end(reader)
    return time.monotonic()


@dataclass(frozen=True)
class Run:
    """`seconds` until the last node had all, `loaded` from the store in models, `cpu` seconds."""

    seconds: float
    loaded: float
    cpu: float


def measure(nodes: list[Node], digest: str, log: Path, *, peers: bool) -> Run:
    """Let nodes start together on empty caches."""
    used = cpu_seconds()
    with caches(nodes, peers=peers), ThreadPoolExecutor(len(nodes)) as pool:
        before = log.stat().st_size
        started = time.monotonic()
        ended = max(pool.map(lambda node: read(node, digest), nodes))
        with open(log) as lines:
            lines.seek(before)
            loaded = sum(int(line) for line in lines)
    return Run(ended - started, loaded / sum(SHARDS), cpu_seconds() - used)


def cpu_seconds() -> float:
    """Return what all ended children have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(folder: Path, rounds: int) -> Report:
    """Measure all three in turn, `rounds` times."""
    report = Report()
    (folder / "key").write_bytes(os.urandom(32).hex().encode())
    digest = publish(folder / "store")
    with network(folder) as nodes, store(folder) as log:
        for _ in range(rounds):
            alone = measure(nodes[:1], digest, log, peers=True)
            together = measure(nodes, digest, log, peers=True)
            apart = measure(nodes, digest, log, peers=False)
            tools = {"one node alone": alone, "glowplug": together, "without peers": apart}
            for tool, run in tools.items():
                print(tool, run, file=sys.stderr)
                report.add(CASE, tool, "time", "s", run.seconds)
                report.add(CASE, tool, "read from the store", "models", run.loaded)
                report.add(CASE, tool, "CPU", "s", run.cpu)
            ratio = together.seconds / alone.seconds
            report.add(CASE, "glowplug", "time / one node alone", "ratio", ratio)
        report.add(CASE, "limit", "time", "s", sum(SHARDS) / RATE)
    return report


def main() -> None:
    """Measure, print, and write."""
    options = arguments(__doc__)
    for program in ("ip", "tc", "nginx"):
        if shutil.which(program) is None:
            sys.exit(f"{program} is missing: install iproute2 and nginx.")
    if os.geteuid():
        sys.exit("Network namespaces need root.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="glowplug-herd-", dir="/dev/shm") as name:
        os.chmod(name, 0o755)
        report = compare(Path(name), rounds=1 if options.quick else 3)
    report.show()
    if options.json:
        report.write(options.json)


if __name__ == "__main__":
    main()
