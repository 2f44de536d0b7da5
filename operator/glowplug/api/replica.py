"""The record of one engine process: what observe, act and the gateway talk about."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from glowplug.api import meta


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine process that serves one model, known as (Pod UID, process, port)."""

    pod_uid: str
    process: int
    namespace: str
    model: str
    pod: str
    revision: str
    ip: str | None
    port: int
    launcher_port: int | None
    health_path: str
    metrics_path: str
    metrics: str | None
    draining: bool

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells this process from every other, for as long as the cluster lives."""
        return (self.pod_uid, self.process, self.port)

    def authority(self, port: int | None) -> str:
        """host:port as URLs write it, where an IPv6 address stands in brackets."""
        host = f"[{self.ip}]" if self.ip and ":" in self.ip else self.ip
        return f"{host}:{port}"


class _Pod(Protocol):
    """What has to be known of a Pod; read-only, so that a frozen record fits."""

    @property
    def uid(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def ip(self) -> str | None: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def annotations(self) -> Mapping[str, str]: ...
    @property
    def deleting(self) -> bool: ...


def replicas_of(pod: _Pod) -> tuple[Replica, ...]:
    """Read the replicas that a Pod lists in its annotation.

    A Pod without the annotation, or with one that is not ours to read, lists none: one broken
    Pod must not stop the others.
    """
    draining = pod.deleting or pod.labels.get(meta.LABEL_STATE) == meta.STATE_DRAINING
    return tuple(
        Replica(
            pod_uid=pod.uid,
            process=entry["process"],
            namespace=pod.namespace,
            model=entry["model"],
            pod=pod.name,
            revision=pod.labels.get(meta.LABEL_REVISION, ""),
            ip=pod.ip or None,
            port=entry["port"],
            launcher_port=entry.get("launcherPort"),
            health_path=entry.get("healthPath", "/health"),
            metrics_path=entry.get("metricsPath", "/metrics"),
            metrics=entry.get("metrics"),
            draining=draining,
        )
        for entry in _entries(pod.annotations.get(meta.ANNOTATION_REPLICAS, "[]"))
    )


@lru_cache(maxsize=4096)  # all Pods of a model have the same text
def _entries(text: str) -> tuple[dict[str, Any], ...]:
    try:
        entries = json.loads(text)
    except ValueError:
        return ()
    if not isinstance(entries, list):
        return ()
    return tuple(entry for entry in entries if _readable(entry))


def _readable(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("model"), str)
        and isinstance(entry.get("process"), int)
        and isinstance(entry.get("port"), int)
    )
