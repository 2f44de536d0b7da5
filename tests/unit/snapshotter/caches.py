"""Node caches in the test's own event loop, a store of small chunks, and a peer that can lie."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
from blake3 import blake3
from crc32c import crc32c

from glowplug_snapshotter import manifest as manifests
from glowplug_snapshotter.cache.auth import Key
from glowplug_snapshotter.cache.daemon import Daemon, Settings
from glowplug_snapshotter.manifest import File, Manifest
from glowplug_snapshotter.plan import blob_key, manifest_key

from .web import Web

CHUNK = 64 * 1024
SECRET = b"a key that all daemons of the test share"


@dataclass(frozen=True)
class Snapshot:
    """A stored snapshot: its digest and its files' bytes, in the order of a restore."""

    digest: str
    files: dict[str, bytes]

    @property
    def manifest_path(self) -> str:
        return f"/{manifest_key(self.digest)}"

    def blob(self, name: str) -> str:
        return blake3(self.files[name]).hexdigest()

    def blob_path(self, name: str) -> str:
        return f"/{blob_key(self.blob(name))}"

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))


def publish(root: Path, files: dict[str, int], seed: int = 1) -> Snapshot:
    """Store random files of these sizes (bytes) below `root`, in chunks of CHUNK."""
    source = random.Random(seed)
    data = {name: source.randbytes(size) for name, size in files.items()}
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    for content in data.values():
        (root / blob_key(blake3(content).hexdigest())).write_bytes(content)
    entries = tuple(
        File(
            name,
            len(content),
            blake3(content).hexdigest(),
            tuple(crc32c(content[at : at + CHUNK]) for at in range(0, len(content), CHUNK)),
        )
        for name, content in data.items()
    )
    body = manifests.encode(Manifest("s3://models/random", None, entries, CHUNK))
    digest = manifests.digest_of(body)
    path = root / manifest_key(digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    return Snapshot(digest, data)


@dataclass
class Node:
    """One daemon and what its clients say of it."""

    daemon: Daemon
    url: str  # for Pods
    peer: str  # host:port for peers

    async def get(self, path: str, span: tuple[int, int] | None = None, **headers: str) -> bytes:
        """Return a body; `span` is (first, end). Raises ClientResponseError."""
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        async with (
            aiohttp.ClientSession(raise_for_status=True) as session,
            session.get(f"{self.url}{path}", headers=headers) as response,
        ):
            return await response.read()

    async def restore(self, snapshot: Snapshot) -> dict[str, bytes]:
        """Read everything as a restore does: the manifest, then each file by chunks."""
        data = await self.get(snapshot.manifest_path)
        assert manifests.digest_of(data) == snapshot.digest
        return {
            name: b"".join(
                [
                    await self.get(snapshot.blob_path(name), (at, min(at + CHUNK, len(content))))
                    for at in range(0, len(content), CHUNK)
                ]
            )
            for name, content in snapshot.files.items()
        }

    async def metrics(self) -> dict[str, float]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.peer}/metrics") as response,
        ):
            lines = (await response.text()).splitlines()
        pairs = (line.split() for line in lines if not line.startswith("#"))
        return {name.removeprefix("glowplug_cache_"): float(value) for name, value in pairs}


@dataclass
class Caches:
    """Makes nodes over one store; every node knows every other."""

    folder: Path
    store: Web
    free_port: Callable[[], int]
    nodes: list[Node] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def addresses(self) -> set[str]:
        return self.known

    @property
    def store_reads(self) -> int:
        """Requests for blobs that the store was asked."""
        return sum(path.startswith("blobs/") for path, _ in self.store.requests)

    async def start(self, name: str = "node", *, budget: int = 1 << 30, **changes: object) -> Node:
        """Start a daemon on a directory of this name, which may be an earlier one's."""
        key = self.folder / "key"
        key.write_bytes(SECRET)
        settings = Settings(
            store=self.store.url,
            endpoint=None,
            directory=self.folder / name,
            budget=budget,
            host="127.0.0.1",
            port=self.free_port(),
            peer_port=self.free_port(),
            key_file=key,
        )
        settings = replace(settings, **changes)
        daemon = Daemon(settings, self)
        await daemon.start()
        node = Node(daemon, f"http://127.0.0.1:{settings.port}", f"127.0.0.1:{settings.peer_port}")
        self.nodes.append(node)
        self.known.add(node.peer)
        return node

    async def stop(self, node: Node) -> None:
        self.nodes.remove(node)
        self.known.discard(node.peer)
        await node.daemon.close()

    def sign(self, method: str, target: str, now: float) -> str:
        return Key(SECRET).sign(method, target, now)


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until a condition holds, for half a minute at most."""
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110 - the condition is another program's
            await asyncio.sleep(0.05)
