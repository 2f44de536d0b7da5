"""Where the nodes' caches are: EndpointSlices of their headless Service, trimmed."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.kube import Json, WatchCache

PORT_NAME = "peers"


@dataclass(frozen=True, slots=True)
class CacheSlice:
    """One EndpointSlice of the caches' Service; `urls` by node name."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    urls: dict[str, str]


def trim_cache_slice(obj: Json) -> CacheSlice:
    """An EndpointSlice -> the ready caches on the port named `peers`."""
    meta = obj["metadata"]
    ports = [p["port"] for p in obj.get("ports") or () if p.get("name") == PORT_NAME]
    return CacheSlice(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        urls={
            endpoint["nodeName"]: _url(endpoint["addresses"][0], port)
            for port in ports[:1]
            for endpoint in obj.get("endpoints") or ()
            if endpoint.get("nodeName") and (endpoint.get("conditions") or {}).get("ready", True)
        },
    )


class NodeCaches:
    """The caches by node."""

    def __init__(self, slices: WatchCache[CacheSlice]) -> None:
        self._slices = slices

    def url(self, node: str) -> str | None:
        """The address of a node's cache, for the operator; None without one."""
        return next((s.urls[node] for s in self._slices.all() if node in s.urls), None)


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
