"""Where the gateways are: EndpointSlices of their Service, trimmed."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.kube import Json

ADMIN_PORT = "admin"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One gateway. `key` is its Pod's uid where the slice names it, else its address."""

    key: str
    url: str
    serving: bool


@dataclass(frozen=True, slots=True)
class SliceRecord:
    """One EndpointSlice of the gateways' Service."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    endpoints: tuple[Endpoint, ...]


def trim_slice(obj: Json) -> SliceRecord:
    """An EndpointSlice -> its endpoints on the port named `admin`, ready or not.

    Endpoints that terminate or are not ready stay in: they may still hold requests.
    """
    meta = obj["metadata"]
    ports = [p["port"] for p in obj.get("ports") or () if p.get("name") == ADMIN_PORT]
    return SliceRecord(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
        endpoints=tuple(
            _endpoint(endpoint, obj.get("addressType", "IPv4"), port)
            for port in ports[:1]
            for endpoint in obj.get("endpoints") or ()
            if endpoint.get("addresses")
        ),
    )


def _endpoint(endpoint: Json, address_type: str, port: int) -> Endpoint:
    address = endpoint["addresses"][0]
    host = f"[{address}]" if address_type == "IPv6" else address
    conditions = endpoint.get("conditions") or {}
    return Endpoint(
        key=(endpoint.get("targetRef") or {}).get("uid") or address,
        url=f"http://{host}:{port}",
        # The API says that an absent condition is to be read as true.
        serving=conditions.get("serving", conditions.get("ready")) is not False,
    )
