"""One pass over one ModelDeployment: observe, decide, act, report.

Idempotent and level-triggered: it reads what is there and writes what is missing, so an operator
killed between any two writes leaves nothing that the next pass does not finish.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glowplug.act import conditions
from glowplug.act.conditions import judged
from glowplug.act.events import Recorder
from glowplug.act.service import NameTakenError, Services
from glowplug.act.snapshot import snapshot_body
from glowplug.act.status import StatusWriter
from glowplug.act.troubles import Trouble
from glowplug.act.writer import Writer
from glowplug.api import ModelDeployment
from glowplug.control.deciding import Decider
from glowplug.control.gauges import Figures
from glowplug.control.metrics import Metrics
from glowplug.control.minds import Mind, Minds
from glowplug.control.model import Model, Settings, prepare
from glowplug.control.objects import Held, Key, Objects
from glowplug.control.observing import Observer, View
from glowplug.control.pools import dollars_per_hour
from glowplug.control.replicas import Errand, Outcome, Replicas
from glowplug.control.report import (
    Decided,
    Pass,
    cold_start_news,
    find_troubles,
    news,
    snapshot_verdict,
    status_of,
)
from glowplug.kube import (
    MODELDEPLOYMENTS,
    MODELSNAPSHOTS,
    AlreadyExists,
    Forbidden,
    Invalid,
    Json,
)
from glowplug.observe import ColdStarts

log = logging.getLogger(__name__)

SOON_S = 0.5
_CALM_FACTOR = 5


@dataclass(frozen=True, slots=True)
class Hands:
    """All that writes."""

    writer: Writer
    replicas: Replicas
    services: Services
    status: StatusWriter
    recorder: Recorder


@dataclass(frozen=True, slots=True)
class Eyes:
    """All that reads."""

    objects: Objects
    observer: Observer
    cold_starts: ColdStarts


class Deployments:
    """Reconciles ModelDeployments; `clock` in seconds since the epoch.

    others_wait: whether other objects are due and have not been looked at yet.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        eyes: Eyes,
        decider: Decider,
        hands: Hands,
        metrics: Metrics,
        others_wait: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._eyes = eyes
        self._decider = decider
        self._hands = hands
        self._metrics = metrics
        self._others_wait = others_wait
        self._clock = clock
        self._minds = Minds()
        self._uids: dict[Key, str] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Look at one object; returns the seconds until its next look, None for none."""
        held = self._eyes.objects.deployments.get(key.namespace, key.name)
        self._forget_stranger(key, held)
        if held is None or held.deleting:
            return None
        if held.object is None:
            await self._refuse(held)
            return None
        mind, now = self._minds.of(held.uid), self._clock()
        model = prepare(held, held.object, self._eyes.objects, self._settings)
        dialect = model.recipe.engine.metrics
        view = self._eyes.observer.look(model.key, held.uid, dialect, mind, now)
        decided = self._decider.decide(model, view, mind)
        outcome = await self._hands.replicas.move(self._errand(model, view, decided, mind, now))
        if outcome.moved and self._others_wait():
            return 0.0  # the Pods of all models come before words about one
        await self._surround(model, decided, mind, now)
        await self._report(model, view, decided, outcome, mind)
        await self._ask_for_snapshot(model)
        return self._pace(view, decided, outcome)

    def _errand(self, model: Model, view: View, decided: Decided, mind: Mind, now: float) -> Errand:
        deployments, namespace = self._eyes.objects.deployments, model.held.namespace
        return Errand(
            recipe=model.recipe,
            pool=model.choice.pool,
            owned=view.pods,
            wanted=decided.wanted,
            load=view.load,
            mind=mind,
            neighbours=lambda: [h.ref for h in deployments.all() if h.namespace == namespace],
            now=now,
        )

    async def _surround(self, model: Model, decided: Decided, mind: Mind, now: float) -> None:
        """What stands around the replicas: Service and template check."""
        recorder, recipe = self._hands.recorder, model.recipe
        try:
            await self._hands.services.ensure(model.ref, recipe.engine.port)
        except NameTakenError as error:
            await recorder.warning(model.ref, "ServiceNameTaken", str(error))
        except (Invalid, Forbidden) as error:
            await recorder.warning(model.ref, "ServiceRefused", error.message)
        if not decided.wanted and not model.is_known_valid:
            await self._hands.replicas.try_template(recipe, mind, now)

    async def _ask_for_snapshot(self, model: Model) -> None:
        if model.lacks_snapshot(self._settings.store):
            body = snapshot_body(model.deployment, model.ref)
            with contextlib.suppress(AlreadyExists):
                made = await self._hands.writer.create(MODELSNAPSHOTS, body)
                self._eyes.objects.snapshots.put(made)

    async def _report(
        self, model: Model, view: View, decided: Decided, outcome: Outcome, mind: Mind
    ) -> None:
        held, pool = model.held, model.choice.pool
        has_store = self._settings.store is not None
        done = Pass(
            before=held.status,
            generation=held.generation,
            recipe=model.recipe,
            fleet=outcome.fleet,
            decided=decided,
            refused=model.choice.refused or outcome.refused,
            failed_rungs=outcome.failed_rungs,
            template_error=mind.refusal_of(model.recipe.revision),
            metrics=view.metrics,
            snapshot=snapshot_verdict(model.recipe, model.snapshot, store=has_store),
            dollars_per_hour=dollars_per_hour(pool, view.pods) if pool is not None else None,
            history=self._eyes.cold_starts.history(model.key),
            troubles=find_troubles(outcome.fleet, view.launcher_troubles()),
            now=view.signals.now,
        )
        after = status_of(done)
        await self._say_scaled(model, decided, mind)
        await self._write_status(held, after)
        await self._say_troubles(held, done.troubles, mind)
        cost = done.dollars_per_hour
        figures = Figures(decided.wanted, after["tiers"], view.requests(), cost)
        self._metrics.show(model.key, figures, model.deployment.spec.warmth.cold_start)

    async def _write_status(self, held: Held[ModelDeployment], after: Json) -> None:
        before = held.status.get("conditions") or []
        written = await self._hands.status.write(
            MODELDEPLOYMENTS, held.ref, held.status, after, broken=held.object is None
        )
        if written is None:
            return
        self._eyes.objects.deployments.put(written)
        for one in (*news(before, after["conditions"]), *cold_start_news(held.status, after)):
            say = self._hands.recorder.warning if one.warning else self._hands.recorder.normal
            await say(held.ref, one.reason, one.sentence)

    async def _say_troubles(
        self, held: Held[ModelDeployment], troubles: Sequence[Trouble], mind: Mind
    ) -> None:
        """Replicas' troubles as they begin: where others serve, no condition turns for them."""
        first = {trouble.reason: trouble for trouble in reversed(troubles)}
        for reason in first.keys() - mind.troubles:
            await self._hands.recorder.warning(held.ref, reason, first[reason].sentence)
        mind.troubles = frozenset(first)

    async def _say_scaled(self, model: Model, decided: Decided, mind: Mind) -> None:
        last = mind.wanted
        if last is None:
            last = int((model.held.status.get("decision") or {}).get("desired") or 0)
        mind.wanted = decided.wanted
        if last == decided.wanted:
            return
        m = model.deployment.metadata
        direction = "up" if decided.wanted > last else "down"
        self._metrics.decisions.labels(m.namespace, m.name, direction).inc()
        told = f"From {last} to {decided.wanted} replicas: {decided.reason}"
        log.info("scaled: %s", told)
        await self._hands.recorder.normal(model.ref, "Scaled", told, "Scale")

    async def _refuse(self, held: Held[ModelDeployment]) -> None:
        """An object that breaks the rules of its kind: say so, and touch nothing that runs."""
        before = held.status.get("conditions") or []
        ready = [c for c in before if c.get("type") == "Ready"]
        verdict = conditions.invalid(held.problems)
        after = {
            **held.status,
            "observedGeneration": held.generation,
            "conditions": [
                *judged(ready, [verdict], self._clock(), held.generation),
                *(c for c in before if c.get("type") != "Ready"),
            ],
        }
        try:
            await self._write_status(held, after)
        except Invalid as error:
            # Rules of the CRD that fail on a wrong type forbid every write, that of status too.
            log.warning("status refused: %s", error)
            await self._hands.recorder.warning(held.ref, verdict.reason, verdict.message)

    def _pace(self, view: View, decided: Decided, outcome: Outcome) -> float:
        fleet = outcome.fleet
        if fleet.draining or outcome.moved:
            return SOON_S
        at_rest = not decided.wanted and not view.pods and not view.signals.held
        return self._settings.loop * (_CALM_FACTOR if at_rest else 1)

    def _forget_stranger(self, key: Key, held: Held[ModelDeployment] | None) -> None:
        """Drop what was remembered of an object that is gone, or was made anew."""
        uid = held.uid if held is not None else None
        known = self._uids.pop(key, None)
        model = f"{key.namespace}/{key.name}"
        if known is not None and known != uid:
            self._minds.forget(known)
            self._hands.replicas.forget(known)
            self._hands.services.forget(known)
            self._hands.status.forget(known)
            self._decider.forget(model)
            self._eyes.cold_starts.forget(model)
            self._metrics.forget(model)
        if held is None:
            return
        self._uids[key] = held.uid
        cold = held.status.get("coldStart")
        if known != uid and isinstance(cold, dict):
            self._eyes.cold_starts.history(model).remember(cold)
