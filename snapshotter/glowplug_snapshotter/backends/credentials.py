"""Finds plain keys in the environment, without the libraries that other credentials need."""

from __future__ import annotations

import os
from collections.abc import Mapping

from glowplug_snapshotter.backends.sigv4 import Keys
from glowplug_snapshotter.errors import SnapshotError

OWN_SOURCES = (  # variables by which obstore finds credentials by itself
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def plain_keys(env: Mapping[str, str], prefix: str = "") -> Keys | None:
    """Return the keys in `<prefix>AWS_*`, or None; SnapshotError(Forbidden) for half a pair."""
    key = env.get(f"{prefix}AWS_ACCESS_KEY_ID")
    if key is None:
        return None
    secret = env.get(f"{prefix}AWS_SECRET_ACCESS_KEY")
    if not secret:
        raise SnapshotError(
            "Forbidden",
            f"{prefix}AWS_ACCESS_KEY_ID is set but {prefix}AWS_SECRET_ACCESS_KEY is not: "
            "put both into the Secret.",
        )
    return Keys(key, secret, env.get(f"{prefix}AWS_SESSION_TOKEN"))


def region_of(env: Mapping[str, str], prefix: str = "") -> str:
    """Return the region to sign for, us-east-1 unless set."""
    return env.get(f"{prefix}AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1"


def has_profile(env: Mapping[str, str]) -> bool:
    """Say whether an AWS profile may hold credentials."""
    return bool(env.get("AWS_PROFILE")) or os.path.exists(os.path.expanduser("~/.aws/credentials"))


def are_none(env: Mapping[str, str]) -> bool:
    """Say whether there is no sign of credentials of any kind."""
    kinds = ("AWS_ACCESS_KEY_ID", *OWN_SOURCES)
    return not has_profile(env) and not any(kind in env for kind in kinds)
