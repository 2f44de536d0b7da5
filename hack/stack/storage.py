"""The S3 store of the local cluster: buckets, and the example model's upload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def connect(endpoint: str, access_key: str, secret_key: str) -> S3Client:
    """Return an S3 client for a path-addressed store such as SeaweedFS."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 8}),
    )


def ensure_bucket(s3: S3Client, bucket: str) -> None:
    """Create the bucket unless it exists."""
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError:
        s3.create_bucket(Bucket=bucket)


def upload_folder(s3: S3Client, folder: Path, bucket: str, prefix: str) -> None:
    """Upload a folder's files below `prefix`, skipping those already there in the same size."""
    present = {
        item["Key"]: item["Size"]
        for item in s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", [])
    }
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    missing = [
        path for path in files if present.get(f"{prefix}/{path.name}") != path.stat().st_size
    ]
    if not missing:
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns) as progress:
        total = sum(path.stat().st_size for path in missing)
        task = progress.add_task(f"Uploading to s3://{bucket}/{prefix}", total=total)
        for path in missing:
            s3.upload_file(
                str(path),
                bucket,
                f"{prefix}/{path.name}",
                Callback=lambda count: progress.advance(task, count),
            )
