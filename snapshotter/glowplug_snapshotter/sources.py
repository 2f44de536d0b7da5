"""Turns a URL into a reader. Back ends are imported where needed: cold starts pay for imports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from glowplug_snapshotter.backends import Reader
from glowplug_snapshotter.backends.local import LocalReader
from glowplug_snapshotter.errors import SnapshotError

if TYPE_CHECKING:
    from glowplug_snapshotter.backends.objects import ObjectReader

PVC_ROOT = Path("/glowplug/pvc")  # where a Pod mounts the claim that pvc://CLAIM/... names


def open_source(url: str, endpoint: str | None = None) -> Reader:
    """Return a reader rooted at `url`.

    `endpoint` is an S3-compatible store's address. Credentials come from the environment. Raises
    SnapshotError(InvalidURL) with a sentence.
    """
    parts = urlsplit(url)
    path = unquote(parts.path).strip("/")
    if parts.username or parts.password:
        raise SnapshotError(
            "InvalidURL", f"The {parts.scheme}:// URL holds a password: put it into a Secret."
        )
    if parts.scheme == "file":
        return LocalReader(Path("/", path), url)
    if parts.scheme == "pvc" and parts.netloc:
        return LocalReader(PVC_ROOT / parts.netloc / path, url)
    if parts.scheme in ("http", "https") and parts.netloc:
        from glowplug_snapshotter.backends.web import WebReader

        return WebReader(url)
    if parts.scheme == "hf" and parts.netloc and path:
        from glowplug_snapshotter.backends.web import HubReader

        repository = f"{parts.netloc}/{path}"
        return HubReader(repository, os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN"))
    if parts.scheme in ("s3", "gs", "az") and parts.netloc:
        return _open_bucket(parts.scheme, parts.netloc, path, endpoint)
    raise SnapshotError(
        "InvalidURL",
        f"{url!r} is not a model's address: use s3://bucket/prefix, gs://, az://, "
        "hf://org/name@revision, pvc://claim/path, file:///path or http(s)://host/path.",
    )


def _open_bucket(scheme: str, bucket: str, prefix: str, endpoint: str | None) -> Reader:
    if scheme == "s3" and endpoint is not None and urlsplit(endpoint).scheme == "http":
        return _open_plain_s3(bucket, prefix, endpoint)
    from glowplug_snapshotter.backends import buckets
    from glowplug_snapshotter.backends.objects import ObjectReader

    if scheme == "gs":
        return ObjectReader(buckets.open_gcs(bucket), scheme, bucket, prefix)
    if scheme == "az":
        return ObjectReader(buckets.open_azure(bucket), scheme, bucket, prefix)
    return ObjectReader(buckets.open_s3(bucket, endpoint, os.environ), scheme, bucket, prefix)


def _open_plain_s3(bucket: str, prefix: str, endpoint: str) -> Reader:
    from glowplug_snapshotter.backends import credentials

    def objects() -> ObjectReader:
        from glowplug_snapshotter.backends import buckets
        from glowplug_snapshotter.backends.objects import ObjectReader

        return ObjectReader(buckets.open_s3(bucket, endpoint, os.environ), "s3", bucket, prefix)

    keys = credentials.plain_keys(os.environ)
    if keys is None and not credentials.are_none(os.environ):
        from glowplug_snapshotter.backends.objects import SignedReader

        return SignedReader(objects())
    from glowplug_snapshotter.backends.s3 import S3HttpReader
    from glowplug_snapshotter.backends.sigv4 import signer

    sign = signer(keys, credentials.region_of(os.environ)) if keys else None
    return S3HttpReader(endpoint, bucket, prefix, sign, lambda: objects().entries())
