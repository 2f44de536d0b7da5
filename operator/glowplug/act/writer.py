"""The one door to the API server for everything that changes it.

Each write asks first whether the lease is still ours: a leader that was suspended and wakes up
after another took over writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from glowplug.kube import ApiError, Client, Json, Resource


class NotLeaderError(Exception):
    """The lease is not surely ours; nothing was written."""


class WriteLog(Protocol):
    """Told of every write: its verb, the resource's plural, and `ok` or the API server's reason."""

    def __call__(self, verb: str, resource: str, outcome: str) -> None: ...  # noqa: D102


class Writer:
    """The writing verbs of `Client`, guarded and counted; errors are the client's."""

    def __init__(self, client: Client, may_write: Callable[[], bool], log: WriteLog) -> None:
        self._client = client
        self._may_write = may_write
        self._log = log

    async def create(self, res: Resource, body: Json, *, dry_run: bool = False) -> Json:
        """Create an object; `dry_run` only asks whether it would be taken."""
        verb = "dry-run" if dry_run else "create"
        with self._guard(verb, res):
            return await self._client.create(res, body, dry_run=dry_run)

    async def apply(
        self, res: Resource, body: Json, *, field_manager: str, subresource: str | None = None
    ) -> Json:
        """Server-side apply."""
        with self._guard("apply", res):
            return await self._client.apply(
                res, body, field_manager=field_manager, subresource=subresource
            )

    async def patch(
        self,
        res: Resource,
        name: str,
        body: Json,
        namespace: str,
        *,
        subresource: str | None = None,
    ) -> Json:
        """Merge patch."""
        with self._guard("patch", res):
            return await self._client.patch(res, name, body, namespace, subresource=subresource)

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str,
        *,
        uid: str,
        grace_seconds: int | None = None,
        propagation: Literal["Background"] | None = None,
    ) -> None:
        """Delete the object with this uid; already gone is done."""
        with self._guard("delete", res):
            await self._client.delete(
                res,
                name,
                namespace,
                uid=uid,
                grace_seconds=grace_seconds,
                propagation=propagation,
            )

    def _guard(self, verb: str, res: Resource) -> _Guard:
        if not self._may_write():
            raise NotLeaderError(f"lease not held: {verb} {res.plural} left out")
        return _Guard(self._log, verb, res.plural)


class _Guard:
    """Counts one write by how it ended."""

    def __init__(self, log: WriteLog, verb: str, resource: str) -> None:
        self._log = log
        self._verb = verb
        self._resource = resource

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        outcome = "ok"
        if isinstance(error, ApiError):
            outcome = error.reason
        elif kind is not None:
            outcome = kind.__name__
        self._log(self._verb, self._resource, outcome)
