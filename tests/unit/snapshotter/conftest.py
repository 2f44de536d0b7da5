"""A real S3 (SeaweedFS), a web server that misbehaves on demand, a small real model."""

import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.client import Config

from .caches import Caches
from .tools import wait_for, write_model
from .web import Web, web_server

WEED = Path(sys.executable).with_name("weed")
IDENTITIES = {
    "identities": [
        {
            "name": "owner",
            "credentials": [{"accessKey": "owner", "secretKey": "owner-secret"}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": "reader", "secretKey": "reader-secret"}],
            "actions": ["Read:models", "List:models"],
        },
    ]
}


@dataclass
class S3:
    """The store on loopback, with its two identities and its buckets `models` and `store`."""

    endpoint: str
    client: object

    def keys(self, bucket: str, prefix: str) -> set[str]:
        listing = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix)
        return {item["Key"].removeprefix(prefix) for item in listing.get("Contents", [])}

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"{prefix}/{path.relative_to(folder)}"
                self.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[S3]:
    root = tmp_path_factory.mktemp("weed")
    (root / "identities.json").write_text(json.dumps(IDENTITIES))
    names = ("master", "volume", "filer", "s3")
    ports = [free_port() for _ in range(2 * len(names))]
    flags = []
    for name, port, grpc in zip(names, ports[::2], ports[1::2], strict=True):
        flags += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    endpoint = f"http://127.0.0.1:{ports[6]}"
    with open(root / "log", "wb") as log:
        weed = subprocess.Popen(
            [
                WEED, "server", f"-dir={root}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3",
                *flags, "-s3.port.iceberg=0", "-s3.port.lance=0", "-iam.port=0",
                f"-s3.config={root}/identities.json", "-master.telemetry=false",
                "-volume.max=100", "-master.volumeSizeLimitMB=4096",  # files grow as they fill
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="owner",
            aws_secret_access_key="owner-secret",
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )
        wait_for(lambda: _made(client, "models") and _made(client, "store"), 180)
        yield S3(endpoint, client)
    finally:
        weed.kill()  # its data are temporary, and a clean stop takes it 20 s
        weed.wait()


def _made(client: object, bucket: str) -> bool:
    try:
        client.create_bucket(Bucket=bucket)
    except Exception as error:
        return "BucketAlready" in str(error)
    return True


@pytest.fixture
def prefix() -> str:
    """A place in a bucket that no other test uses."""
    return uuid.uuid4().hex


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with web_server(tmp_path / "www") as served:
        yield served


@pytest.fixture
async def caches(tmp_path: Path, web: Web, free_port: Callable[[], int]) -> AsyncIterator[Caches]:
    """Nodes' caches of what `web` holds, stopped after the test."""
    made = Caches(tmp_path, web, free_port)
    yield made
    for node in list(made.nodes):
        await made.stop(node)
