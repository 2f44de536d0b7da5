"""From observations to decisions: pure and deterministic, no wall clock, no I/O."""

from glowplug.decide.arbiter import Arbiter, Bid
from glowplug.decide.autoscaler import Autoscaler
from glowplug.decide.decision import Decision, Step
from glowplug.decide.observation import DemandHistory, LeadTimes, Observation, Prices
from glowplug.decide.standbys import StandbyPlanner

__all__ = [
    "Arbiter",
    "Autoscaler",
    "Bid",
    "Decision",
    "DemandHistory",
    "LeadTimes",
    "Observation",
    "Prices",
    "StandbyPlanner",
    "Step",
]
