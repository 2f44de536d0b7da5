"""What is true now: Pods, launchers, gateways' demand and Prometheus, read and never written."""

from glowplug.observe.assemble import ModelSignals, Totals, signals
from glowplug.observe.coldstarts import ColdStarts
from glowplug.observe.demand import Demand, First
from glowplug.observe.engines import EngineSignals
from glowplug.observe.gateways import GatewayDemand
from glowplug.observe.history import ColdStartHistory, MeasuredLeadTimes, PathStats
from glowplug.observe.launchers import ReplicaStates
from glowplug.observe.nodecaches import CacheSlice, NodeCaches, trim_cache_slice
from glowplug.observe.prometheus import Health, PrometheusSignals
from glowplug.observe.replicas import Census, Seen, census, model_keys
from glowplug.observe.slices import SliceRecord, trim_slice
from glowplug.observe.stages import ColdStart
from glowplug.observe.state import ReplicaState, StageSpan
from glowplug.observe.timeline import PodTimeline

__all__ = [
    "CacheSlice",
    "Census",
    "ColdStart",
    "ColdStartHistory",
    "ColdStarts",
    "Demand",
    "EngineSignals",
    "First",
    "GatewayDemand",
    "Health",
    "MeasuredLeadTimes",
    "ModelSignals",
    "NodeCaches",
    "PathStats",
    "PodTimeline",
    "PrometheusSignals",
    "ReplicaState",
    "ReplicaStates",
    "Seen",
    "SliceRecord",
    "StageSpan",
    "Totals",
    "census",
    "model_keys",
    "signals",
    "trim_cache_slice",
    "trim_slice",
]
