"""Opens buckets: which endpoint, whose credentials, and what an object store's errors mean.

Credentials come from the environment, a web identity or the node (obstore), or an AWS profile
(boto3: it takes 450 ms to import, obstore 40 ms, so a cold start pays only where it must).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from glowplug_snapshotter.backends.credentials import (
    are_none,
    has_profile,
    plain_keys,
    region_of,
)
from glowplug_snapshotter.backends.http import refusal
from glowplug_snapshotter.errors import SnapshotError, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import ClientConfig, S3Config, S3Credential

ASKED_AGAIN = timedelta(minutes=1)  # then boto3, which knows when they end, is asked again
STORE_PREFIX = "GLOWPLUG_STORE_"  # of the variables that hold the destination's own credentials
CLIENT: ClientConfig = {
    "allow_http": True,
    "connect_timeout": "5s",
    "read_timeout": "30s",
    "timeout": "10m",
}


def open_s3(bucket: str, endpoint: str | None, env: Mapping[str, str], prefix: str = "") -> S3Store:
    """Open an S3 bucket with the credentials in `env`, in variables that start with `prefix`.

    `endpoint` None is AWS itself. Addressing is by path, the region us-east-1 unless set.
    """
    if f"{prefix}AWS_ACCESS_KEY_ID" not in env:
        prefix = ""
    provider = _credentials(env, prefix)
    anonymous = endpoint is not None and are_none(env)
    config: S3Config = {"region": region_of(env, prefix), "skip_signature": anonymous}
    if endpoint:
        config["endpoint"] = endpoint
    try:
        return S3Store(
            bucket,
            config=config,
            credential_provider=provider,
            client_options=CLIENT,
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=20)},
        )
    except Exception as error:  # obstore has no common base for what a constructor raises
        raise translate(error, f"s3://{bucket}") from None


def open_gcs(bucket: str) -> GCSStore:
    """Open a Google bucket with the credentials in GOOGLE_* or of the workload."""
    return GCSStore(bucket)


def open_azure(container: str) -> AzureStore:
    """Open an Azure container; AZURE_STORAGE_ACCOUNT_NAME says in which account."""
    return AzureStore(container)


def _credentials(env: Mapping[str, str], prefix: str) -> Callable[[], S3Credential] | None:
    keys = plain_keys(env, prefix)
    if keys is not None:
        found: S3Credential = {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": None,
        }
        return lambda: found
    if has_profile(env):
        import boto3.session
        from obstore.auth.boto3 import Boto3CredentialProvider

        session = boto3.session.Session(profile_name=env.get("AWS_PROFILE"))
        return Boto3CredentialProvider(session, ttl=ASKED_AGAIN)
    return None


def boto3_client(endpoint: str | None, env: Mapping[str, str], prefix: str = "") -> S3Client:
    """Return a boto3 client with the same credentials, for what obstore cannot do."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    anonymous = endpoint is not None and are_none(env) and not plain_keys(env, prefix)
    if f"{prefix}AWS_ACCESS_KEY_ID" not in env:
        prefix = ""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=region_of(env, prefix),
        aws_access_key_id=env.get(f"{prefix}AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=env.get(f"{prefix}AWS_SECRET_ACCESS_KEY"),
        aws_session_token=env.get(f"{prefix}AWS_SESSION_TOKEN"),
        config=Config(
            s3={"addressing_style": "path"},
            signature_version=UNSIGNED if anonymous else None,
            retries={"mode": "standard", "max_attempts": 5},
            request_checksum_calculation="when_required",  # many stores know no other
            response_checksum_validation="when_required",
            max_pool_connections=16,
        ),
    )


def translate(error: Exception, where: str) -> SnapshotError:
    """Say what an obstore exception means; its own text may hold a signed URL and is not kept."""
    text = str(error)
    code = (re.findall(r"<Code>(\w{1,64})</Code>", text) or [""])[0]
    found = re.search(r"non-2xx status code: (\d{3})", text)
    if found is not None:
        status = int(found.group(1))
        if status in (301, 307):
            return SnapshotError(
                "Unavailable", f"{where} lies in another region: set AWS_REGION in the Secret."
            )
        return refusal(status, where, code)
    if isinstance(error, FileNotFoundError):
        return refusal(404, where, code)
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return refusal(403, where, code)
    if isinstance(error, exceptions.PreconditionError):
        return refusal(412, where, code)
    if "redential" in text or "AccessKey" in text:
        return SnapshotError(
            "Forbidden", f"No credentials for {where} were found: name a Secret that holds them."
        )
    return TransientError(f"{where} could not be reached ({type(error).__name__}).")
