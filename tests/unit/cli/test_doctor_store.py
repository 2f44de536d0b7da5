"""The doctor's look at a store: a real S3 protocol on loopback, right and wrong in each way."""

from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from glowplug.cli.doctor.store import ask

KEYS = {"AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="owner",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="there")
    yield url
    server.stop()


def test_a_store_that_answers(endpoint: str) -> None:
    finding = ask("s3://there/snapshots", endpoint, KEYS)
    assert (finding.level, finding.advice) == ("ok", "")


@pytest.mark.parametrize(
    ("url", "env", "told"),
    [
        ("s3://missing/snapshots", KEYS, "missing"),
        ("gs://there", KEYS, "use s3://bucket/prefix"),
        ("s3://there", {"AWS_ACCESS_KEY_ID": "owner"}, "AWS_SECRET_ACCESS_KEY is not"),
    ],
)
def test_what_is_wrong_is_named(endpoint: str, url: str, env: dict[str, str], told: str) -> None:
    finding = ask(url, endpoint, env)
    assert finding.level == "fail"
    assert told in finding.sentence
    assert "GlowplugSnapshotFailing.md" in finding.advice


def test_a_store_that_is_not_reached_is_told_by_its_address() -> None:
    finding = ask("s3://there", "http://127.0.0.1:1", KEYS)
    assert finding.level == "fail"
    assert "at http://127.0.0.1:1" in finding.sentence
