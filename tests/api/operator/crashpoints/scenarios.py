"""The stories that are told once undisturbed, then again with a death at each of their writes."""

from dataclasses import dataclass
from typing import Any

from glowplug.kube import MODELDEPLOYMENTS, Client, Json

ENGINE = {"type": "custom", "image": "engine:1", "command": ["serve"]}
SCALING = {"targetConcurrency": 2, "maxReplicas": 8, "idleAfter": "1s"}


@dataclass
class Stage:
    """Where a story plays: one namespace with one model `m`, and the gateway that asks for it."""

    client: Client
    namespace: str
    gateway: Any

    async def model(self, **spec: Any) -> None:
        body = {
            "apiVersion": "glowplug.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": "m", "namespace": self.namespace},
            "spec": {"model": {"source": "s3://models/m"}, "engine": ENGINE, **spec},
        }
        await self.client.create(MODELDEPLOYMENTS, body)

    async def change(self, **spec: Any) -> None:
        await self.client.patch(MODELDEPLOYMENTS, "m", {"spec": spec}, self.namespace)

    async def status(self) -> Json:
        body = await self.client.get(MODELDEPLOYMENTS, "m", self.namespace)
        status: Json = body.get("status") or {}
        return status

    def demand(self, **numbers: Any) -> None:
        self.gateway.say(f"{self.namespace}/m", **numbers)


class Story:
    """`prepare` makes what there is before, `begin` sets off what is watched, `is_over` ends it.

    at_most: active Pods at any moment; at_least: replicas that serve at any moment after `begin`.
    dies_with_model: the model is deleted in the moment of the operator's death.
    """

    at_most = 3
    at_least = 0
    dies_with_model = False

    async def prepare(self, stage: Stage) -> None: ...
    async def is_prepared(self, stage: Stage) -> bool:
        return True

    async def begin(self, stage: Stage) -> None: ...
    async def is_over(self, stage: Stage) -> bool:
        raise NotImplementedError


async def all_serve(stage: Stage, wanted: int) -> bool:
    status = await stage.status()
    counts = [status.get(key) for key in ("replicas", "readyReplicas", "updatedReplicas")]
    verified = (status.get("snapshot") or {}).get("verified")
    at_rest = not (status.get("tiers") or {}).get("draining")
    return counts == [wanted] * 3 and verified == "snapshot" and at_rest


class ScaleUp(Story):
    """A model is created; held requests ask for three replicas; its snapshot is taken."""

    async def begin(self, stage: Stage) -> None:
        stage.demand(held=5, arrivals=5)
        await stage.model(scaling=SCALING)

    async def is_over(self, stage: Stage) -> bool:
        return await all_serve(stage, 3)


class ScaleDown(Story):
    """Three replicas have nothing to do any more."""

    async def prepare(self, stage: Stage) -> None:
        await ScaleUp().begin(stage)

    async def is_prepared(self, stage: Stage) -> bool:
        return await all_serve(stage, 3)

    async def begin(self, stage: Stage) -> None:
        stage.demand(held=0, completions=5)

    async def is_over(self, stage: Stage) -> bool:
        return await all_serve(stage, 0)


class Rollout(Story):
    """Two replicas get another image, without ever being fewer than two."""

    at_least = 2

    async def prepare(self, stage: Stage) -> None:
        await stage.model(replicas=2)

    async def is_prepared(self, stage: Stage) -> bool:
        return await all_serve(stage, 2)

    async def begin(self, stage: Stage) -> None:
        await stage.change(engine=ENGINE | {"image": "engine:2"})

    async def is_over(self, stage: Stage) -> bool:
        conditions = (await stage.status()).get("conditions") or ()
        observed = {c.get("observedGeneration") for c in conditions}
        return observed == {2} and await all_serve(stage, 2)


class Deletion(ScaleUp):
    """The model is deleted while it scales up."""

    dies_with_model = True


STORIES: dict[str, Story] = {
    "scale-up": ScaleUp(),
    "scale-down": ScaleDown(),
    "rollout": Rollout(),
    "deletion": Deletion(),
}
