"""What is remembered of a model between two looks at it, all of it expendable.

A new operator starts with empty minds: whatever must survive is in API objects, or is learned anew
at the price of a little patience.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from glowplug.act.conditions import Verdict
from glowplug.api import Scaling, Warmth
from glowplug.decide import Autoscaler
from glowplug.observe import Totals

STALE_PATIENCE_S = 20.0
_REFUSED_AGAIN_S = 30.0
_SHORTAGE_BASE_S = 1.0
_SHORTAGE_CAP_S = 30.0
_ENDED_BASE_S = 2.0
_ENDED_CAP_S = 300.0


@dataclass(slots=True)
class Refusal:
    """A revision that the API server did not take, and when to ask again (s since the epoch)."""

    revision: str
    sentence: str
    until: float


@dataclass(slots=True)
class Shortage:
    """Why the namespace takes no more Pods, and when to try again (s since the epoch)."""

    verdict: Verdict
    tries: int
    until: float


@dataclass(slots=True)
class Mind:
    """One model's memory; times are seconds since the epoch."""

    scaler: Autoscaler | None = None
    made_from: tuple[Scaling, Warmth] | None = None
    totals: Totals | None = None
    wanted: int | None = None
    stale_since: float | None = None
    accepted: str | None = None
    refusal: Refusal | None = None
    shortage: Shortage | None = None
    scarce: str | None = None
    troubles: frozenset[str] = frozenset()
    ended: int = 0
    ended_until: float = 0.0

    def scaler_for(self, scaling: Scaling, warmth: Warmth) -> Autoscaler:
        """The autoscaler of this spec; a changed spec starts a new one."""
        if self.scaler is None or self.made_from != (scaling, warmth):
            self.scaler = Autoscaler(scaling, warmth)
            self.made_from = (scaling, warmth)
        return self.scaler

    def refuse(self, revision: str, sentence: str, now: float) -> None:
        """The API server refused this revision."""
        self.refusal = Refusal(revision, sentence, now + _REFUSED_AGAIN_S)

    def accept(self, revision: str) -> None:
        """The API server took this revision."""
        self.accepted, self.refusal = revision, None

    def refused(self, revision: str, now: float) -> bool:
        """Whether asking for this revision again would be too early."""
        refusal = self.refusal
        return refusal is not None and refusal.revision == revision and now < refusal.until

    def refusal_of(self, revision: str) -> str | None:
        """The API server's sentence about this revision, None when it took it or was not asked."""
        refusal = self.refusal
        return refusal.sentence if refusal is not None and refusal.revision == revision else None

    def lack(self, verdict: Verdict, now: float) -> None:
        """The namespace has no room: the next try waits longer each time."""
        tries = self.shortage.tries + 1 if self.shortage is not None else 0
        delay = min(_SHORTAGE_CAP_S, _SHORTAGE_BASE_S * 2.0 ** min(tries, 16))
        self.shortage = Shortage(verdict, tries, now + delay)

    def lacking(self, now: float) -> Verdict | None:
        """Why it is too early to try to create a Pod, None when it is not."""
        return self.shortage.verdict if self.shortage and now < self.shortage.until else None

    def lost(self, count: int, now: float) -> None:
        """Pods that had ended were deleted: the next ones that end wait longer."""
        if count:
            delay = min(_ENDED_CAP_S, _ENDED_BASE_S * 2.0 ** min(self.ended, 16))
            self.ended += 1
            self.ended_until = now + delay

    def still_stale(self, stale: bool, now: float) -> bool:
        """Whether signals have been stale for so long that it is worth a condition."""
        if not stale:
            self.stale_since = None
        elif self.stale_since is None:
            self.stale_since = now
        return self.stale_since is not None and now - self.stale_since >= STALE_PATIENCE_S


@dataclass(slots=True)
class Minds:
    """The memory of all models, by uid: an object made anew is a stranger."""

    _of: dict[str, Mind] = field(default_factory=dict)

    def of(self, uid: str) -> Mind:
        """The model's memory."""
        return self._of.setdefault(uid, Mind())

    def forget(self, uid: str) -> None:
        """The model is gone."""
        self._of.pop(uid, None)
