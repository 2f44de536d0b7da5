"""All that can keep a replica from starting, at the same time, each in a model of its own.

Each is said in a condition and an event, costs no new Pod and few writes while it lasts, leaves the
neighbour alone, and is over soon after its cause is.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from cluster import node, services
from cluster.commands import run
from cluster.config import NODE_IP, paths
from stack import processes, storage
from stack.install import S3_ENDPOINT, STORE
from stack.stack import Stack

from .scene import (
    ENGINE_IMAGE,
    FILE_SERVER,
    PATIENCE_S,
    TIMEOUT_S,
    Json,
    change,
    events,
    is_serving,
    launch_of,
    light,
    neighbour,
    uids,
    warnings,
    with_launch,
    writes_within,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.timeout(TIMEOUT_S)

BUCKET, LATE_BUCKET = "faults", "faults-late"
UNKNOWN_IMAGE = f"{NODE_IP}:9/glowplug/engine:none"  # nothing listens on that port
START_TIMEOUT_S = 8


@dataclass(frozen=True)
class World:
    """What faults are made in, and taken back from."""

    stack: Stack
    s3: S3Client

    def put(self, bucket: str, key: str) -> None:
        """A file that no store has seen: each has its own blob and manifest."""
        weights = json.dumps({"architectures": ["None"], "made": str(uuid.uuid4())})
        self.s3.put_object(Bucket=bucket, Key=key, Body=weights.encode())

    def secret(self, name: str, key: str, secret: str) -> None:
        data = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
        self.stack.apply({**body, "stringData": data})

    def good_secret(self, name: str) -> None:
        self.secret(name, services.ACCESS_KEY, services.SECRET_KEY)

    def late_bucket(self) -> None:
        self.s3.create_bucket(Bucket=LATE_BUCKET)
        self.put(LATE_BUCKET, "m/config.json")

    def manifest(self, name: str) -> str:
        """The key of the manifest of a model's snapshot."""
        digest = self.stack.status(name)["snapshot"]["digest"].removeprefix("blake3:")
        return f"snapshots/manifests/{digest}/manifest.json"

    def blob(self, name: str) -> str:
        """The key of the only file in a model's snapshot."""
        manifest = self.s3.get_object(Bucket=STORE, Key=self.manifest(name))["Body"].read()
        [file] = json.loads(manifest)["files"]
        return f"snapshots/blobs/{file['blake3']}"

    def flip(self, key: str) -> None:
        """Change one bit of an object in the store; a second time puts it right."""
        body = self.s3.get_object(Bucket=STORE, Key=key)["Body"].read()
        self.s3.put_object(Bucket=STORE, Key=key, Body=body[:-1] + bytes([body[-1] ^ 1]))

    def bring_image(self) -> None:
        run(node.ctr(paths(), "images", "tag", "--force", ENGINE_IMAGE, UNKNOWN_IMAGE))

    def take_image(self) -> None:
        run(node.ctr(paths(), "images", "rm", UNKNOWN_IMAGE))


@dataclass(frozen=True)
class Fault:
    """A model that cannot start: what Ready and the event say, and what puts it right."""

    name: str
    reason: str
    told: tuple[str, ...]
    heal: Callable[[World], None]
    source: str = f"s3://{BUCKET}/m"
    secret: str = "glowplug-store"
    engine: Json = field(default_factory=dict)
    hasty: bool = False  # its launcher waits START_TIMEOUT_S for the engine
    also: tuple[str, str, str] | None = None  # (condition, reason, words) beside Ready

    def body(self, launch: Json) -> Json:
        body = light(self.name, self.source, S3_ENDPOINT, secretRef={"name": self.secret})
        body["spec"]["engine"] |= self.engine
        if not self.hasty:
            return body
        filled = {"port": launch["port"], "model_dir": launch["modelDir"]}
        command = [word.format(**filled) for word in self.engine.get("command", FILE_SERVER)]
        mine = {"startTimeout": START_TIMEOUT_S, "model": f"demo/{self.name}"}
        mine |= {"command": command, "inflightMetrics": []}
        mine["healthPath"] = self.engine.get("healthPath", "/config.json")
        mine["restore"] = launch["restore"] | {"from": self.source}
        return with_launch(body, launch | mine)


def _cured(name: str) -> Callable[[World], None]:
    """The user writes a command that works."""
    engine = {"command": FILE_SERVER, "healthPath": "/config.json"}
    return lambda world: change(world.stack, name, engine=engine, template=None)


FAULTS = (
    Fault(
        "no-bucket",
        "RestoreFailed",
        ("NotFound", LATE_BUCKET),
        World.late_bucket,
        source=f"s3://{LATE_BUCKET}/m",
    ),
    Fault(
        "no-key",
        "RestoreFailed",
        ("NotFound", f"s3://{BUCKET}/absent"),
        lambda world: world.put(BUCKET, "absent/config.json"),
        source=f"s3://{BUCKET}/absent",
    ),
    Fault(
        "no-secret",
        "ContainerConfigError",
        ('secret "faults-absent" not found',),
        lambda world: world.good_secret("faults-absent"),
        secret="faults-absent",
        also=("SnapshotReady", "SecretMissing", "create secret generic faults-absent"),
    ),
    Fault(
        "wrong-key",
        "RestoreFailed",
        ("Forbidden", f"s3://{BUCKET}/m"),
        lambda world: world.good_secret("faults-wrong"),
        secret="faults-wrong",
    ),
    Fault(
        "no-image",
        "ImagePullFailed",
        (UNKNOWN_IMAGE, "engine.image"),
        World.bring_image,
        engine={"image": UNKNOWN_IMAGE},
    ),
    Fault(
        "exits",
        "EngineFailed",
        ("The engine exited with code 3 before it was ready",),
        _cured("exits"),
        engine={"command": ["python3", "-c", "raise SystemExit(3)"]},
    ),
    Fault(
        "hangs",
        "EngineFailed",
        ("not healthy on port 8000", f"within {START_TIMEOUT_S} s"),
        _cured("hangs"),
        engine={"command": ["sleep", "infinity"]},
        hasty=True,
    ),
    Fault(
        "never-well",
        "EngineFailed",
        ("(/absent)", f"within {START_TIMEOUT_S} s"),
        _cured("never-well"),
        engine={"healthPath": "/absent"},
        hasty=True,
    ),
)
TAMPERED = (
    Fault(
        "tampered",
        "RestoreFailed",
        ("ChecksumMismatch", "snapshots/blobs/"),
        lambda world: world.flip(world.blob("tampered")),
        source=f"s3://{BUCKET}/tampered",
    ),
    Fault(
        "forged",
        "RestoreFailed",
        ("DigestMismatch", "snapshots/manifests/"),
        lambda world: world.flip(world.manifest("forged")),
        source=f"s3://{BUCKET}/forged",
    ),
)
"""What heals them is what breaks them: a bit flipped in the store, once their snapshot is taken."""


@pytest.fixture
def world(stack: Stack) -> Iterator[World]:
    """A bucket with a model that loads, a Secret with wrong credentials; none of it afterwards."""
    s3 = storage.connect(S3_ENDPOINT, services.ACCESS_KEY, services.SECRET_KEY)
    made = World(stack, s3)
    _clear(made)
    s3.create_bucket(Bucket=BUCKET)
    for prefix in ("m", "tampered", "forged"):
        made.put(BUCKET, f"{prefix}/config.json")
    made.secret("faults-wrong", "nobody", "knows-this")
    try:
        yield made
    finally:
        _clear(made)


def _clear(world: World) -> None:
    for bucket in (BUCKET, LATE_BUCKET):
        try:
            listed = world.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
            for item in listed:
                world.s3.delete_object(Bucket=bucket, Key=item["Key"])
            world.s3.delete_bucket(Bucket=bucket)
        except ClientError:
            continue
    world.stack.kubectl("delete", "secret", "faults-absent", "faults-wrong", "--ignore-not-found")
    world.take_image()


async def test_each_is_said_costs_little_and_is_over_with_its_cause(
    stack: Stack, world: World
) -> None:
    async with neighbour(stack) as well:
        await _snapshots_are_taken(stack)
        for fault in FAULTS:
            stack.apply(fault.body(launch_of(well)))
        for fault in TAMPERED:
            fault.heal(world)
            change(stack, fault.name, replicas=1)

        every = (*FAULTS, *TAMPERED)
        for fault in every:
            await _is_said(stack, fault)
        before = {fault.name: uids(stack, fault.name) for fault in every}
        written = await writes_within(stack, 10)
        assert {fault.name: uids(stack, fault.name) for fault in every} == before
        # A start that fails turns Ready and back: kubelet's backoff makes that ever rarer.
        assert written <= 5 * len(every)
        for fault in TAMPERED:
            [uid] = before[fault.name]
            assert processes.of_pod(uid, "http.server") == [], "no wrong byte is served"

        for fault in every:
            fault.heal(world)
        for fault in every:
            await stack.until(lambda name=fault.name: is_serving(stack, name, 1), PATIENCE_S)
            assert len(events(stack, fault.name)) <= 12, events(stack, fault.name)


async def _snapshots_are_taken(stack: Stack) -> None:
    """Of the models that are tampered with, while they have no replica."""
    for fault in TAMPERED:
        body = fault.body({})
        body["spec"] |= {"replicas": 0}
        body["spec"]["model"]["snapshot"] = {"policy": "Auto"}
        stack.deploy(body)
    for fault in TAMPERED:
        name = fault.name
        await stack.until(
            lambda name=name: stack.condition(name, "SnapshotReady", status="True"), PATIENCE_S
        )
        await stack.until(lambda name=name: "digest" in stack.status(name)["snapshot"], 90)


async def _is_said(stack: Stack, fault: Fault) -> None:
    reason = fault.reason
    ready = await stack.until(
        lambda: stack.condition(fault.name, "Ready", status="False", reason=reason), PATIENCE_S
    )
    [pod] = stack.pods(fault.name)
    for words in (pod["metadata"]["name"], *fault.told):
        assert words in ready["message"], (fault.name, ready["message"])
    [*notes] = await stack.until(lambda: warnings(stack, fault.name, reason), 90)
    assert any(all(words in note for words in fault.told) for note in notes), notes
    if fault.also is not None:
        kind, why, words = fault.also
        found = await stack.until(lambda: stack.condition(fault.name, kind, reason=why), 90)
        assert words in found["message"]
        assert await asyncio.to_thread(warnings, stack, fault.name, why)
