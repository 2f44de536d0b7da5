"""Finds the other nodes' daemons: a list, a file, or the EndpointSlices of a headless Service."""

from __future__ import annotations

import http.client
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

log = logging.getLogger(__name__)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PORT_NAME = "peers"
WATCH_S = 300  # s that one watch lasts
TIMEOUT = 30.0  # s for an answer to begin
LONGEST_PAUSE = 30.0


class Discovery(Protocol):
    """Knows addresses, `host:port`, the own one among them or not."""

    def addresses(self) -> Collection[str]:
        """Return who is there now, without waiting."""


class Listed:
    """Addresses that are given, or the lines of a file that may change."""

    def __init__(self, given: Collection[str] = (), file: Path | None = None) -> None:
        self._given = frozenset(given)
        self._file = file
        self._read: tuple[float, frozenset[str]] = (0.0, frozenset())

    def addresses(self) -> Collection[str]:
        """Return the given addresses and those in the file."""
        if self._file is None:
            return self._given
        try:
            changed = self._file.stat().st_mtime
            if changed != self._read[0]:
                self._read = (changed, frozenset(self._file.read_text().split()))
        except OSError as error:
            log.warning("the peers' file cannot be read: %s", error)
        return self._given | self._read[1]


class Sliced:
    """The endpoints of a Service, watched from a thread; the last known ones while that fails."""

    def __init__(self, namespace: str, service: str, env: Mapping[str, str]) -> None:
        host, port = env["KUBERNETES_SERVICE_HOST"], env.get("KUBERNETES_SERVICE_PORT", "443")
        self._server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        selector = quote(f"kubernetes.io/service-name={service}", safe="")
        self._path = (
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            f"?labelSelector={selector}"
        )
        self._slices: dict[str, frozenset[str]] = {}
        self._addresses: frozenset[str] = frozenset()

    def start(self) -> None:
        """Watch until the process ends."""
        threading.Thread(target=self._watch_forever, name="discovery", daemon=True).start()

    def addresses(self) -> Collection[str]:
        """Return the last known ready endpoints."""
        return self._addresses

    def _watch_forever(self) -> None:
        pause = 1.0
        while True:
            try:
                self._watch(self._list())
                pause = 1.0
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                log.warning("the peers' EndpointSlices cannot be watched: %s", error)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _list(self) -> str:
        with _Connection(self._server) as connection:
            body = json.load(connection.get(f"{self._path}&resourceVersion=0"))
        self._slices = {one["metadata"]["name"]: ready(one) for one in body["items"]}
        self._combine()
        version: str = body["metadata"]["resourceVersion"]
        return version

    def _watch(self, version: str) -> None:
        query = f"&watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}"
        with _Connection(self._server, WATCH_S + TIMEOUT) as connection:
            for line in connection.get(f"{self._path}{query}&resourceVersion={version}"):
                event = json.loads(line)
                name = event["object"].get("metadata", {}).get("name")
                if event["type"] == "ERROR":
                    return  # most often too old a version: list again
                if event["type"] == "DELETED":
                    self._slices.pop(name, None)
                elif event["type"] in ("ADDED", "MODIFIED"):
                    self._slices[name] = ready(event["object"])
                self._combine()

    def _combine(self) -> None:
        self._addresses = frozenset().union(*self._slices.values())


def ready(endpoint_slice: dict[str, Any]) -> frozenset[str]:
    """Return the addresses of a slice's ready endpoints, on the port named `peers`."""
    ports = [p["port"] for p in endpoint_slice.get("ports") or () if p.get("name") == PORT_NAME]
    addresses = [
        address
        for endpoint in endpoint_slice.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint["addresses"]
    ]
    return frozenset(join(address, port) for address in addresses for port in ports)


def join(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Connection:
    """One request to the API server, as the Pod's own account."""

    def __init__(self, server: str, timeout: float = TIMEOUT) -> None:
        context = ssl.create_default_context(cafile=os.fspath(ACCOUNT / "ca.crt"))
        self._connection = http.client.HTTPSConnection(server, timeout=timeout, context=context)

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str) -> http.client.HTTPResponse:
        token = (ACCOUNT / "token").read_text().strip()  # it is renewed on the disk
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        self._connection.request("GET", path, headers=headers)
        response = self._connection.getresponse()
        if response.status != 200:
            raise ValueError(f"the API server answered {response.status}")
        return response
