"""What happens in one seed: users change their minds, Pods come, fail and go, operators die."""

import asyncio
import contextlib
import random
from typing import Any

import aiohttp

from glowplug.api import meta
from glowplug.control.model import Settings
from glowplug.control.operator import Operator
from glowplug.control.queue import KeyedQueue
from glowplug.kube import MODELDEPLOYMENTS, PODS, ApiError, Json

from .client import SimulatedClient
from .virtual import VirtualLoop
from .world import Disturbance, World

NAMESPACE = "models"
REST_S = 30.0
PATIENCE_S = 240.0
SURGE = 1


def labels(pod: Json) -> dict[str, str]:
    found: dict[str, str] = pod["metadata"]["labels"]
    return found


def is_active(pod: Json) -> bool:
    ended = (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
    gone = "deletionTimestamp" in pod["metadata"]
    return not (ended or gone) and labels(pod)[meta.LABEL_STATE] == meta.STATE_ACTIVE


class Story:
    """One seed. `tell` raises AssertionError when a promise is broken on the way."""

    def __init__(self, seed: int, loop: VirtualLoop, monkeypatch: Any) -> None:
        monkeypatch.setattr("glowplug.control.operator.time", loop.module())
        self.chance = random.Random(seed)
        self.disturbance = Disturbance(self.chance)
        self.world = World(loop.wall)
        self.world.judges.append(self._judge)
        self.client = SimulatedClient(self.world, self.disturbance)
        self._loop = loop
        self._operator: Operator | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._seen: dict[str, list[tuple[float, str, int]]] = {}
        self._wanted: dict[str, list[tuple[str, int, int]]] = {}
        self.complaints: list[str] = []

    async def tell(self) -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as actors:
            actor = [actors.create_task(run) for run in (self._kubelet(), self._collector())]
            self._operate(session)
            await self._users(session)
            self.disturbance.calm = True
            await asyncio.sleep(PATIENCE_S)
            before = self.client.writes
            await asyncio.sleep(REST_S)
            self.complain_if(self.client.writes != before, "writes at rest")
            await self._stop()
            for task in actor:
                task.cancel()

    def complain_if(self, wrong: bool, what: str) -> None:
        if wrong:
            self.complaints.append(f"at {self._loop.time():.2f} s: {what}")

    # users

    async def _users(self, session: aiohttp.ClientSession) -> None:
        for name in ("a", "b"):
            self._make(name)
        for _ in range(self.chance.randint(4, 10)):
            await asyncio.sleep(self.chance.choice([0.0, 0.3, 3.0, 10.0]))
            name = self.chance.choice("ab")
            act = self.chance.random()
            if act < 0.55:
                self._set(name, replicas=self.chance.randint(0, 4))
            elif act < 0.8:
                self._set(name, engine={"image": f"engine:{self.chance.randint(1, 3)}"})
            elif act < 0.9:
                self.world.remove(MODELDEPLOYMENTS, NAMESPACE, name)
                await asyncio.sleep(self.chance.choice([0.0, 2.0]))
                self._make(name)
            else:
                await self._stop()
                self._operate(session)
        await asyncio.sleep(2.0)

    def _make(self, name: str) -> None:
        spec = {
            "replicas": self.chance.randint(0, 4),
            "model": {"source": "s3://models/m"},
            "engine": {"type": "custom", "image": "engine:1", "command": ["serve"]},
        }
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}
        body |= {"apiVersion": "glowplug.dev/v1alpha1", "kind": "ModelDeployment"}
        self._remember(self.world.create(MODELDEPLOYMENTS, body))

    def _set(self, name: str, **spec: Any) -> None:
        self._remember(self.world.change(MODELDEPLOYMENTS, NAMESPACE, name, {"spec": spec}))

    def _remember(self, body: Json) -> None:
        m = body["metadata"]
        wanted = (m["uid"], m["generation"], body["spec"]["replicas"])
        self._wanted.setdefault(m["name"], []).append(wanted)

    # the cluster

    async def _kubelet(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0.05, 0.5))
            for pod in self.world.all(PODS):
                self._tend(pod)

    def _tend(self, pod: Json) -> None:
        m, phase = pod["metadata"], (pod.get("status") or {}).get("phase", "Pending")
        if "deletionTimestamp" in m:
            if self.chance.random() < 0.3:
                self.world.remove(PODS, NAMESPACE, m["name"])
        elif phase == "Pending" and self.chance.random() < 0.4:
            conditions = [{"type": t, "status": "True"} for t in ("PodScheduled", "Ready")]
            status = {"phase": "Running", "conditions": conditions}
            change = {"spec": {"nodeName": "n"}, "status": status}
            self.world.change(PODS, NAMESPACE, m["name"], change)
        elif phase == "Running" and self.disturbance.happens(0.005):
            self.world.change(PODS, NAMESPACE, m["name"], {"status": {"phase": "Failed"}})
        elif phase == "Running" and self.disturbance.happens(0.005):
            self.world.delete(PODS, NAMESPACE, m["name"])

    async def _collector(self) -> None:
        while True:
            await asyncio.sleep(self.chance.uniform(0.5, 3.0))
            living = {model["metadata"]["uid"] for model in self.world.all(MODELDEPLOYMENTS)}
            for pod in self.world.all(PODS):
                m = pod["metadata"]
                if not living & {owner["uid"] for owner in m["ownerReferences"]}:
                    self.world.delete(PODS, NAMESPACE, m["name"])

    # the operator

    def _operate(self, session: aiohttp.ClientSession) -> None:
        made = Operator(
            self.client,  # type: ignore[arg-type]
            session,
            Settings(2.0, "snapshotter:1", None),
            namespace="glowplug",
            identity="simulated",
            launcher=b"a zipapp",
            prometheus_url=None,
        )
        made.lease._renewed = float("inf")  # it leads: leases are another test's affair
        made.queue = KeyedQueue(clock=self._loop.time, chance=self.chance.random)
        self._operator = made
        self._seen.clear()
        background = made.background()
        for unused in ("kopf", "sweep", "cold starts"):
            background.pop(unused).close()
        runs = [*background.values(), self._lead(made), self._follow(made), self._note_seen(made)]
        self._tasks = [asyncio.create_task(run) for run in runs]

    async def _lead(self, made: Operator) -> None:
        await made.warm()
        tasks = made.leading()
        tasks.pop("lease").close()
        await tasks["queue"]

    async def _follow(self, made: Operator) -> None:
        """What kopf does, with events as bad as the others', and the sweep that makes up for it."""
        while True:
            with contextlib.suppress(ApiError):
                start = str(self.world.version)
                await made.objects.sweep(self.client)  # type: ignore[arg-type]
                watched = self.client.watch(MODELDEPLOYMENTS, resource_version=start)
                async with contextlib.aclosing(watched) as events:
                    async for what, body in events:
                        self._tell(made, what, body)
            await asyncio.sleep(0.5)

    def _tell(self, made: Operator, what: str, body: Json) -> None:
        if what == "DELETED":
            made.objects.deployments.remove(body)
        elif what != "BOOKMARK":
            made.objects.deployments.put(body)

    async def _note_seen(self, made: Operator) -> None:
        while True:
            for held in made.objects.deployments.all():
                seen = (self._loop.time(), held.uid, held.generation)
                self._seen.setdefault(held.name, []).append(seen)
            await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for end in await asyncio.gather(*self._tasks, return_exceptions=True):
            self.complain_if(isinstance(end, Exception), f"the operator ended: {end!r}")

    # promises

    def _judge(self, what: str) -> None:
        if " pods " not in what:
            return
        name = what.rsplit(" ", 1)[1]
        pod = self.world.get(PODS, NAMESPACE, name)
        owner = pod["metadata"]["ownerReferences"][0]
        mine = [
            labels(other)
            for other in self.world.all(PODS)
            if is_active(other) and other["metadata"]["ownerReferences"][0]["uid"] == owner["uid"]
        ]
        slots = [(p[meta.LABEL_REVISION], p[meta.LABEL_SLOT]) for p in mine]
        self.complain_if(len(slots) != len(set(slots)), f"{what}: two active Pods for one slot")
        if what.startswith("ADDED"):
            bound = self._bound(owner["name"], owner["uid"]) + SURGE
            self.complain_if(len(mine) > bound, f"{what}: {len(mine)} active, {bound} allowed")

    def _bound(self, name: str, uid: str) -> int:
        """The largest count that the operator may still have in mind while it writes."""
        since = self._loop.time() - 10.0
        recent = [g for at, seen, g in self._seen.get(name, []) if seen == uid and at >= since]
        oldest = min(recent, default=1)
        return max(n for u, g, n in self._wanted[name] if u == uid and g >= oldest)

    def end(self) -> dict[str, object]:
        """What there is at the end: per model the Pods, and what its status says of them."""
        found: dict[str, object] = {}
        for model in self.world.all(MODELDEPLOYMENTS):
            m, status = model["metadata"], model.get("status") or {}
            pods = [p for p in self.world.all(PODS) if labels(p)[meta.LABEL_MODEL] == m["name"]]
            ready = next(c for c in status["conditions"] if c["type"] == "Ready")
            found[m["name"]] = {
                "pods": len(pods),
                "active": sum(map(is_active, pods)),
                "images": {p["spec"]["containers"][0]["image"] for p in pods},
                "owners": {p["metadata"]["ownerReferences"][0]["uid"] for p in pods},
                "counts": [status[k] for k in ("replicas", "readyReplicas", "updatedReplicas")],
                "observed": status["observedGeneration"],
                "ready": (ready["status"], ready["reason"]),
            }
        return found

    def promised(self) -> dict[str, object]:
        """What there must be at the end, whatever was seen late, twice or in another order."""
        found: dict[str, object] = {}
        for model in self.world.all(MODELDEPLOYMENTS):
            m, spec = model["metadata"], model["spec"]
            wanted = spec["replicas"]
            found[m["name"]] = {
                "pods": wanted,
                "active": wanted,
                "images": {spec["engine"]["image"]} if wanted else set(),
                "owners": {m["uid"]} if wanted else set(),
                "counts": [wanted] * 3,
                "observed": m["generation"],
                "ready": ("True", "Serving" if wanted else "ScaledToZero"),
            }
        return found
