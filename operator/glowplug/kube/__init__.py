"""Talking to the API server: client, trimmed watch cache, Lease. Imports nothing else of ours."""

from glowplug.kube.cache import WatchCache
from glowplug.kube.client import Client
from glowplug.kube.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
    Unreachable,
)
from glowplug.kube.lease import Lease, LeaseLost
from glowplug.kube.pods import ContainerRecord, PodRecord, trim_pod
from glowplug.kube.resources import (
    CONFIGMAPS,
    CRDS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    EVENTS,
    GPUPOOLS,
    JOBS,
    LEASES,
    MODELDEPLOYMENTS,
    MODELSNAPSHOTS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)
from glowplug.kube.transport import Json

__all__ = [
    "CONFIGMAPS",
    "CRDS",
    "DEPLOYMENTS",
    "ENDPOINTSLICES",
    "EVENTS",
    "GPUPOOLS",
    "JOBS",
    "LEASES",
    "MODELDEPLOYMENTS",
    "MODELSNAPSHOTS",
    "NAMESPACES",
    "NODES",
    "PODS",
    "SECRETS",
    "SERVICES",
    "AlreadyExists",
    "ApiError",
    "Client",
    "Conflict",
    "ContainerRecord",
    "Expired",
    "Forbidden",
    "Invalid",
    "Json",
    "Lease",
    "LeaseLost",
    "NotFound",
    "PodRecord",
    "Resource",
    "TooManyRequests",
    "Unreachable",
    "WatchCache",
    "trim_pod",
]
