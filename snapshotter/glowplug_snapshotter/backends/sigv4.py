"""AWS Signature Version 4 for GETs whose credentials are two plain keys.

obstore signs too, but takes 40 ms to import, which a cold start would wait for. Source: AWS General
Reference, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials that do not change: an access key, its secret, perhaps a session's token."""

    access_key: str
    secret_key: str
    token: str | None = None


def sign(url: str, keys: Keys, region: str, now: float, service: str = "s3") -> dict[str, str]:
    """Return the headers that a GET of `url` needs; `now` in seconds since the epoch.

    The URL's path must be percent-encoded as S3 does, and it must have no query. Only the host and
    the x-amz headers are signed, so a Range may be added.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    parts = urlsplit(url)
    signed = {"host": parts.netloc, "x-amz-content-sha256": EMPTY_SHA256, "x-amz-date": stamp}
    if keys.token:
        signed["x-amz-security-token"] = keys.token
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    request = f"GET\n{parts.path}\n\n{lines}\n{names}\n{EMPTY_SHA256}"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
    key = f"AWS4{keys.secret_key}".encode()
    for part in (stamp[:8], region, service, "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    signed.pop("host")
    credential = f"Credential={keys.access_key}/{scope}"
    return {
        **signed,
        "Authorization": f"AWS4-HMAC-SHA256 {credential},SignedHeaders={names},"
        f"Signature={key.hex()}",
    }


def signer(keys: Keys, region: str, clock: Callable[[], float] = time.time) -> Signer:
    """Return what signs URLs now."""
    return lambda url: sign(url, keys, region, clock())


Signer = Callable[[str], dict[str, str]]
