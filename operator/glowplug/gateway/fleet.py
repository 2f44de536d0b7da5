"""All models and replicas of this gateway. The cluster's changes come in here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Protocol

from glowplug.api import Replica
from glowplug.gateway.directory import Directory
from glowplug.gateway.model import EngineState, ServedModel, progress
from glowplug.gateway.proxy import EnginePool
from glowplug.gateway.traffic import ModelTraffic, deleted, pinned

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """Finds out when engines are ready."""

    def watch(self, engine: EngineState, changed: Callable[[], None]) -> None:
        """Begin to watch an engine, or begin anew at its new address."""

    def forget(self, engine: EngineState) -> None:
        """Watch it no more."""


class Fleet:
    """Models by name, their traffic by key, and the replicas of each.

    on_change(key, urgent): numbers of the demand stream changed; on_removed(key): a model is gone.
    """

    def __init__(
        self,
        pool: EnginePool,
        watcher: Watcher,
        clock: Callable[[], float],
        on_change: Callable[[str, bool], None],
        on_removed: Callable[[str], None],
    ) -> None:
        self.directory = Directory()
        self._traffic: dict[str, ModelTraffic] = {}
        self._pool = pool
        self._watcher = watcher
        self._clock = clock
        self._on_change = on_change
        self._on_removed = on_removed

    def __iter__(self) -> Iterator[ModelTraffic]:
        """The traffic of every model that exists or still has replicas or requests."""
        return (t for t in self._traffic.values() if t.model or t.engines or t.held)

    def traffic(self, key: str) -> ModelTraffic:
        """The traffic of a model. It outlives the model: totals never go back in an epoch."""
        if key not in self._traffic:
            self._traffic[key] = ModelTraffic(key, self._clock, self._on_change)
        return self._traffic[key]

    def put_model(self, model: ServedModel) -> None:
        """A ModelDeployment was added or changed."""
        self.directory.put(model)
        traffic = self.traffic(model.key)
        traffic.model = model
        if model.pinned == 0 and not traffic.serving:
            traffic.refuse_held(lambda: pinned(model.key))
        traffic.release()

    def remove_model(self, key: str) -> None:
        """A ModelDeployment was deleted."""
        self.directory.remove(key)
        traffic = self._traffic.get(key)
        if traffic is not None:
            traffic.model = None
            traffic.refuse_held(lambda: deleted(key))
        self._on_removed(key)

    def put_replica(self, replica: Replica, stage: str) -> None:
        """A replica was added or its Pod changed. stage: how far its Pod has come."""
        traffic = self.traffic(_model_key(replica))
        engine = traffic.engines.get(replica.key)
        if engine is None:
            engine = traffic.engines[replica.key] = EngineState(replica, stage)
            before = None
        else:
            before = engine.replica
            engine.replica = replica
            if progress(stage) > progress(engine.stage):
                engine.stage = stage  # what a launcher said is never taken back by its Pod
        if before is None or before.ip != replica.ip:
            self._watcher.forget(engine)
            if replica.ip is not None:
                self._watcher.watch(engine, lambda: self._changed(traffic, engine))
        if replica.draining and engine.address is not None:
            self._pool.retire(engine.address)
        self._on_change(traffic.key, replica.draining)
        traffic.release()

    def remove_replica(self, replica: Replica) -> None:
        """A replica's Pod is gone: what it still had to answer is over."""
        traffic = self._traffic.get(_model_key(replica))
        engine = traffic.engines.pop(replica.key, None) if traffic is not None else None
        if traffic is None or engine is None:
            return
        engine.ready = False
        self._watcher.forget(engine)
        if engine.address is not None:
            self._pool.abort(engine.address)
        self._on_change(traffic.key, True)

    def _changed(self, traffic: ModelTraffic, engine: EngineState) -> None:
        if engine.usable:
            traffic.release()


def _model_key(replica: Replica) -> str:
    return f"{replica.namespace}/{replica.model}"
