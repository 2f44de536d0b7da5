"""Joins a gateway's first-token record with what watch and launcher saw, per model.

The three arrive in any order: a record waits a little for its replica's launcher to be heard.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from glowplug.api import Replica
from glowplug.kube import PodRecord
from glowplug.observe.demand import First
from glowplug.observe.history import ColdStartHistory
from glowplug.observe.replicas import Key, restore_spans
from glowplug.observe.stages import ColdStart, Start, cold_start, start_of
from glowplug.observe.state import ReplicaState
from glowplug.observe.timeline import PodTimeline

_PATIENCE = 5.0


class ColdStarts:
    """Cold starts of every model.

    state_of: a replica's launcher state; pod_of: (namespace, name) -> its Pod, both None if
    unknown; on_cold_start(start): one more is known whole; path_of(pod uid): its start path.
    """

    def __init__(
        self,
        timeline: PodTimeline,
        state_of: Callable[[Key], ReplicaState | None],
        pod_of: Callable[[str, str], PodRecord | None],
        *,
        on_cold_start: Callable[[ColdStart], None] = lambda start: None,
        path_of: Callable[[str], str] = lambda uid: "cold",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._timeline = timeline
        self._state_of = state_of
        self._pod_of = pod_of
        self._on_cold_start = on_cold_start
        self._path_of = path_of
        self._clock = clock
        self._histories: dict[str, ColdStartHistory] = {}
        self._starts: dict[str, Start] = {}  # by Pod uid, of replicas that became ready
        self._pending: dict[str, tuple[float, First]] = {}  # by Pod uid

    def history(self, model: str) -> ColdStartHistory:
        """The memory of "namespace/model"."""
        return self._histories.setdefault(model, ColdStartHistory())

    def recent(self, model: str) -> list[ColdStart]:
        """The cold starts of "namespace/model" since this process began, the latest first."""
        known = self._histories.get(model)
        return known.recent() if known is not None else []

    def forget(self, model: str) -> None:
        """The model was deleted."""
        self._histories.pop(model, None)

    def first(self, first: First) -> None:
        """A gateway forwarded the first token after a cold start."""
        self._pending[first.pod_uid] = (self._clock(), first)
        if first.pod_uid in self._starts:
            self._finish(first.pod_uid)

    def changed(self, replica: Replica) -> None:
        """A replica's state changed; the subscriber of `ReplicaStates`."""
        state = self._state_of(replica.key)
        if state is None or state.ready_at is None or replica.pod_uid in self._starts:
            return
        pod = self._pod_of(replica.namespace, replica.pod)
        restored = restore_spans(pod) if pod is not None and pod.uid == replica.pod_uid else ()
        start = start_of(self._timeline.get(replica.pod_uid), state, restored)
        self._starts[replica.pod_uid] = start
        if start.seconds is not None:
            history = self.history(f"{replica.namespace}/{replica.model}")
            history.add_lead(self._path_of(replica.pod_uid), start.seconds)
        if replica.pod_uid in self._pending:
            self._finish(replica.pod_uid)

    def gone(self, old: PodRecord | None, new: PodRecord | None) -> None:
        """A subscriber of the Pod cache: forget what a deleted Pod did."""
        if old is not None and new is None:
            self._starts.pop(old.uid, None)

    def tick(self) -> None:
        """Settle records whose launcher was not heard in time; call it once a loop."""
        now = self._clock()
        for uid, (since, _) in list(self._pending.items()):
            if now - since > _PATIENCE:
                self._finish(uid)

    def _finish(self, uid: str) -> None:
        _, first = self._pending.pop(uid)
        start = self._starts.get(uid) or Start(self._timeline.get(uid))
        done = cold_start(first, start, self._path_of(uid))
        self.history(first.model).add(done)
        self._on_cold_start(done)
