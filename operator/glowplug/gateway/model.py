"""What the gateway knows of a ModelDeployment and of each engine process."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.api import STAGES, UNATTRIBUTED, Replica
from glowplug.gateway.proxy import Address


def progress(stage: str) -> int:
    """How far a stage is along a start; -1 for a word that names none."""
    return STAGES.index(stage) if stage in STAGES and stage != UNATTRIBUTED else -1


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One ModelDeployment as the gateway needs it. Times in s.

    slots: requests that held ones are released to per replica; paths: allowed beside the common
    ones; pinned: spec.replicas; estimate: a typical cold start's length.
    """

    namespace: str
    name: str
    served_name: str
    created: float
    slots: int
    max_hold: float
    max_hold_plain: float
    max_held: int
    paths: frozenset[str] = frozenset()
    pinned: int | None = None
    estimate: float | None = None

    @property
    def key(self) -> str:
        """namespace/name, which no other model shares."""
        return f"{self.namespace}/{self.name}"


class EngineState:
    """One replica as this gateway sees it: what its launcher says, and what it carries."""

    __slots__ = (
        "in_flight",
        "last_used",
        "ready",
        "ready_at",
        "replica",
        "stage",
        "trusted",
    )

    def __init__(self, replica: Replica, stage: str) -> None:
        self.replica = replica
        self.stage = stage
        self.ready = False  # its launcher, or its health path, says so
        self.trusted = True  # no connection failed since it was last seen healthy
        self.ready_at = 0.0  # epoch s at which the gateway learned that it is ready
        self.in_flight = 0
        self.last_used = 0.0

    @property
    def usable(self) -> bool:
        """Whether a new request may go there."""
        return self.ready and self.trusted and not self.replica.draining

    @property
    def address(self) -> Address | None:
        """Where the engine listens, once its Pod has an IP."""
        return None if self.replica.ip is None else Address(self.replica.ip, self.replica.port)
