"""Naming an object of ours to others: as an owner of what we make and as what an event is about."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.api import meta
from glowplug.kube import Json


@dataclass(frozen=True, slots=True)
class Ref:
    """One Glowplug object; `namespace` is "" for a cluster-scoped kind."""

    kind: str
    namespace: str
    name: str
    uid: str

    def owner(self, *, controller: bool = True) -> Json:
        """An ownerReference: the garbage collector deletes what this object owns."""
        reference = {
            "apiVersion": meta.API_VERSION,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
        }
        return reference | ({"controller": True} if controller else {})

    def regarding(self) -> Json:
        """An ObjectReference for events."""
        reference = {
            "apiVersion": meta.API_VERSION,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
        }
        return reference | ({"namespace": self.namespace} if self.namespace else {})

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind}/{where}{self.name}"
