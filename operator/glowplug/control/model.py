"""One ModelDeployment with all that its spec comes down to, before anything is observed."""

from __future__ import annotations

from dataclasses import dataclass

from glowplug.act.containers import Placement, Recipe
from glowplug.act.manifest import revision_of
from glowplug.act.refs import Ref
from glowplug.act.snapshot import snapshot_name
from glowplug.act.weights import Store, weights_of
from glowplug.api import ModelDeployment, ModelSnapshot, condition, resolve_engine
from glowplug.control.objects import Held, Objects
from glowplug.control.pools import Choice, choose_pool
from glowplug_snapshotter.cache.auth import Key


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Where the nodes' caches of the store listen: a headless Service, and the key to ask them."""

    namespace: str
    service: str
    key: Key


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator was started with; `loop` in seconds."""

    loop: float
    snapshotter_image: str
    store: Store | None
    caches: CacheSettings | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A valid ModelDeployment; the recipe's placement is chosen anew for each replica."""

    held: Held[ModelDeployment]
    deployment: ModelDeployment
    recipe: Recipe
    choice: Choice
    snapshot: ModelSnapshot | None

    @property
    def key(self) -> str:
        """namespace/name."""
        return self.deployment.key

    @property
    def ref(self) -> Ref:
        """It, as an owner and as what an event is about."""
        return self.held.ref

    @property
    def is_known_valid(self) -> bool:
        """Whether an earlier pass has asked the API server about this revision already."""
        status = self.held.status
        verdict = condition(status.get("conditions") or [], "TemplateValid") or {}
        return status.get("revision") == self.recipe.revision and verdict.get("status") == "True"

    def lacks_snapshot(self, store: Store | None) -> bool:
        """Whether a snapshot of it should be taken and nobody has asked for it yet."""
        use = self.deployment.spec.model.snapshot
        automatic = use.policy != "Never" and use.name is None
        return (
            automatic
            and store is not None
            and self.snapshot is None
            and self.recipe.weights.claim is None
        )


def prepare(
    held: Held[ModelDeployment], deployment: ModelDeployment, objects: Objects, settings: Settings
) -> Model:
    """Resolve engine, snapshot, weights, revision and pool."""
    engine = resolve_engine(deployment)
    snapshot = _snapshot_of(deployment, objects)
    recipe = Recipe(
        deployment=deployment,
        engine=engine,
        revision=revision_of(deployment, engine),
        weights=weights_of(deployment, snapshot, settings.store),
        placement=Placement(),
        snapshotter_image=settings.snapshotter_image,
    )
    return Model(held, deployment, recipe, choose_pool(deployment, objects.pools.all()), snapshot)


def _snapshot_of(deployment: ModelDeployment, objects: Objects) -> ModelSnapshot | None:
    use = deployment.spec.model.snapshot
    if use.policy == "Never":
        return None
    name = use.name or snapshot_name(deployment)
    held = objects.snapshots.get(deployment.metadata.namespace, name)
    return held.object if held is not None else None
