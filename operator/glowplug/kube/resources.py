"""Addresses of the API server's resources: which URL a kind lives at."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API server. `group` is "" for the core group."""

    group: str
    version: str
    plural: str
    namespaced: bool = True
    kind: str = ""

    @property
    def api_version(self) -> str:
        """`apiVersion` as objects spell it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The URL path of the collection, of one object, or of its subresource.

        Without a namespace, the path of a namespaced collection spans all namespaces.
        """
        if name is not None and self.namespaced and not namespace:
            raise ValueError(f"{self.plural} {name!r}: a namespace is needed to name one object")
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/" + "/".join(quote(part, safe="") for part in parts)


PODS = Resource("", "v1", "pods", kind="Pod")
SERVICES = Resource("", "v1", "services", kind="Service")
CONFIGMAPS = Resource("", "v1", "configmaps", kind="ConfigMap")
SECRETS = Resource("", "v1", "secrets", kind="Secret")
NAMESPACES = Resource("", "v1", "namespaces", namespaced=False, kind="Namespace")
NODES = Resource("", "v1", "nodes", namespaced=False, kind="Node")
EVENTS = Resource("events.k8s.io", "v1", "events", kind="Event")
ENDPOINTSLICES = Resource("discovery.k8s.io", "v1", "endpointslices", kind="EndpointSlice")
DEPLOYMENTS = Resource("apps", "v1", "deployments", kind="Deployment")
JOBS = Resource("batch", "v1", "jobs", kind="Job")
LEASES = Resource("coordination.k8s.io", "v1", "leases", kind="Lease")
CRDS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    namespaced=False,
    kind="CustomResourceDefinition",
)
MODELDEPLOYMENTS = Resource("glowplug.dev", "v1alpha1", "modeldeployments", kind="ModelDeployment")
MODELSNAPSHOTS = Resource("glowplug.dev", "v1alpha1", "modelsnapshots", kind="ModelSnapshot")
GPUPOOLS = Resource("glowplug.dev", "v1alpha1", "gpupools", namespaced=False, kind="GPUPool")
