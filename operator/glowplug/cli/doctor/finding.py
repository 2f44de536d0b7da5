"""What a check found, and what the checks look at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from glowplug.kube import Client

Body = dict[str, Any]
Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about the cluster, and what to do about it unless it is good."""

    level: Level
    sentence: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for; `store` values replace those that the operator was started with."""

    namespace: str = "default"
    secret: str | None = None
    store_url: str | None = None
    store_endpoint: str | None = None
    prometheus_url: str | None = None


@dataclass(frozen=True, slots=True)
class Installed:
    """The operator as its Deployment has it: where, as whom, and with which flags."""

    namespace: str
    service_account: str
    flags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What checks share, read once; None where it may not be read or is not there."""

    client: Client
    options: Options
    operators: Sequence[Body] | None = None
    gateways: Sequence[Body] | None = None
    installed: Installed | None = None
    models: Sequence[Body] | None = None
    pools: Sequence[Body] | None = None
    nodes: Sequence[Body] | None = None


Check = Callable[[Cluster], Awaitable[list[Finding]]]


def ok(sentence: str) -> Finding:
    """Return good news."""
    return Finding("ok", sentence)


def warn(sentence: str, advice: str) -> Finding:
    """Return what may be meant, or may be trouble later."""
    return Finding("warn", sentence, advice)


def bad(sentence: str, advice: str) -> Finding:
    """Return what does not work."""
    return Finding("fail", sentence, advice)
