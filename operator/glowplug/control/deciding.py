"""From what was seen to the wanted count: the autoscaler, a pinned count, the pool's budget."""

from __future__ import annotations

import dataclasses

from glowplug.api import GPUPool
from glowplug.control.budget import Budgets
from glowplug.control.minds import Mind
from glowplug.control.model import Model
from glowplug.control.observing import View
from glowplug.control.report import Decided
from glowplug.decide import Bid


class Decider:
    """Decides for all models; their autoscalers live in their minds."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    def decide(self, model: Model, view: View, mind: Mind) -> Decided:
        """The wanted count of one model, after every bound."""
        spec = model.deployment.spec
        # A pinned model is watched on, so that releasing it finds a scaler that knows its demand.
        decision = mind.scaler_for(spec.scaling, spec.warmth).step(view.observation())
        bound = next((step.why for step in decision.steps if step.name == "maxReplicas"), None)
        decided = Decided(decision.replicas, decision.asleep, decision.reason, decision.rule, bound)
        if spec.replicas is not None:
            told = f"spec.replicas pins the count: {spec.replicas}."
            decided = Decided(spec.replicas, 0, told, "replicas")
        return self._within_pool(model, view, decided)

    def forget(self, model: str) -> None:
        """The model "namespace/name" is gone."""
        self._budgets.forget(model)

    def _within_pool(self, model: Model, view: View, decided: Decided) -> Decided:
        choice = model.choice
        if choice.refused is not None:
            # No pool takes new replicas; those that serve already are not taken away.
            there = view.signals.ready + view.signals.starting
            wanted = min(decided.wanted, there)
            bound = choice.refused.message if wanted < decided.wanted else decided.limited
            return dataclasses.replace(decided, wanted=wanted, limited=bound)
        if choice.pool is None or choice.pool.spec.budget is None:
            self._budgets.forget(model.key)
            return decided
        return self._within_budget(model, view, decided, choice.pool, choice.pool.spec.budget)

    def _within_budget(
        self, model: Model, view: View, decided: Decided, pool: GPUPool, budget: int
    ) -> Decided:
        gpus = model.deployment.spec.gpu.count
        seen = view.signals
        demand = seen.held + (seen.running or 0.0) + (seen.waiting or 0.0)
        bid = Bid(model.key, decided.wanted, gpus, demand / max(1, decided.wanted))
        granted = self._budgets.grant(pool.metadata.name, budget, bid)
        if granted >= decided.wanted:
            return decided
        told = (
            f"{decided.wanted} replicas are wanted, and the budget of GPUPool "
            f"{pool.metadata.name} ({budget} GPUs) has room for {granted}."
        )
        return Decided(granted, decided.asleep, told, "budget", told)
