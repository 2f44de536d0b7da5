"""The verbs of the API server on plain dicts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

import orjson

from glowplug.kube.errors import NotFound, error_from_status
from glowplug.kube.resources import Resource
from glowplug.kube.transport import REQUEST_TIMEOUT, Json, Transport

PAGE = 250
_PATCH_TYPES = {"merge": "application/merge-patch+json", "json": "application/json-patch+json"}


class Client:
    """Get, list, watch, create, apply, patch and delete; every method raises `ApiError`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Client:
        """Find the API server: named kubeconfig, else in-cluster, else the user's kubeconfig."""
        return cls(await Transport.connect(kubeconfig))

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def get(self, res: Resource, name: str, namespace: str | None = None) -> Json:
        """Read one object."""
        return await self._transport.request("GET", res.path(namespace, name))

    async def list(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> list[Json]:
        """Read all objects, page by page; one consistent state, or `Expired`."""
        pages = self.pages(
            res, namespace, label_selector=label_selector, field_selector=field_selector
        )
        return [item async for page in pages for item in page.get("items") or ()]

    async def pages(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> AsyncGenerator[Json, None]:
        """Yield the List objects of a paginated list; all carry one resourceVersion.

        Whoever is done with a page may clear it: a page of whole Pods is 10 MB of dicts.
        """
        query = _selectors(label_selector, field_selector) | {"limit": str(PAGE)}
        while True:
            page = await self._transport.request("GET", res.path(namespace), query=query)
            token = page.get("metadata", {}).get("continue")
            yield page
            if not token:
                return
            query["continue"] = token

    async def watch(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        seconds: int = 300,
        silence: float = 90.0,
    ) -> AsyncGenerator[tuple[str, Json], None]:
        """Yield (type, object) of what changes after `resource_version`, bookmarks included.

        Ends when the server ends it, after about `seconds`. An ERROR event is raised as its
        `ApiError`; `Unreachable` after `silence` seconds without a byte.
        """
        query = _selectors(label_selector, field_selector) | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        async for line in self._transport.lines(res.path(namespace), query, silence=silence):
            event = orjson.loads(line)
            if event["type"] == "ERROR":
                status = event["object"]
                raise error_from_status(int(status.get("code") or 500), status)
            yield event["type"], event["object"]

    async def proxy(
        self,
        res: Resource,
        name: str,
        namespace: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        port: int | str,
        timeout: float = 10.0,
    ) -> bytes:
        """GET `path` from a Pod or a Service through the API server; returns the body as it came.

        What the far side refuses is an `ApiError` as well.
        """
        where = res.path(namespace, f"{name}:{port}", "proxy")
        return await self._transport.read(f"{where}/{path}", query or {}, timeout=timeout)

    async def create(
        self, res: Resource, body: Json, namespace: str | None = None, *, dry_run: bool = False
    ) -> Json:
        """Create an object; an unknown field is an error, never dropped in silence.

        Not repeated after a lost answer: give the object a fixed name and take `AlreadyExists`
        for done.
        """
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        path = res.path(namespace or _namespace_of(body))
        return await self._transport.request("POST", path, query=query, body=body, idempotent=False)

    async def apply(
        self,
        res: Resource,
        body: Json,
        *,
        field_manager: str,
        subresource: str | None = None,
        force: bool = True,
    ) -> Json:
        """Server-side apply: the fields in `body` become `field_manager`'s."""
        meta = body["metadata"]
        return await self._transport.request(
            "PATCH",
            res.path(meta.get("namespace"), meta["name"], subresource),
            query={"fieldManager": field_manager, "force": "true" if force else "false"},
            body={"apiVersion": res.api_version, "kind": res.kind} | body,
            content_type="application/apply-patch+yaml",
        )

    async def patch(
        self,
        res: Resource,
        name: str,
        body: Json | Sequence[Json],
        namespace: str | None = None,
        *,
        kind: Literal["merge", "json"] = "merge",
        subresource: str | None = None,
        timeout: float = REQUEST_TIMEOUT,
    ) -> Json:
        """Merge patch or JSON patch. A resourceVersion in a merge patch makes it conditional."""
        return await self._transport.request(
            "PATCH",
            res.path(namespace, name, subresource),
            body=body,
            content_type=_PATCH_TYPES[kind],
            idempotent=kind == "merge",
            timeout=timeout,
        )

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] | None = None,
    ) -> None:
        """Ask for deletion; an object already gone is done. `Conflict` when `uid` is another's."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if propagation is not None:
            options["propagationPolicy"] = propagation
        try:
            await self._transport.request("DELETE", res.path(namespace, name), body=options)
        except NotFound:
            return


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in given.items() if value}


def _namespace_of(body: Json) -> str | None:
    namespace: str | None = body.get("metadata", {}).get("namespace")
    return namespace
