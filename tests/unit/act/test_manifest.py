"""The Pod of a replica: what the user's YAML becomes, form by form."""

import json
from typing import Any

import pytest

from glowplug.act.containers import Placement, Recipe
from glowplug.act.manifest import replica_pod, revision_of
from glowplug.act.weights import Store, Weights, memory_of, weights_of
from glowplug.api import ModelDeployment, ModelSnapshot, parse, resolve_engine

MIB = 2**20


def deployment(spec: dict[str, Any] | None = None, **changes: Any) -> ModelDeployment:
    made = {
        "model": {
            "source": "s3://models/m",
            "endpoint": "http://s3:8333",
            "secretRef": {"name": "read"},
        },
        "engine": {"type": "custom", "image": "engine:1", "command": ["serve", "{model_dir}"]},
    }
    return parse(
        ModelDeployment,
        {
            "metadata": {"name": "m", "namespace": "ns", "uid": "u1", "generation": 1},
            "spec": {**made, **(spec or {}), **changes},
        },
    )


def engine(**changes: Any) -> dict[str, Any]:
    return {"type": "custom", "image": "engine:1", "command": ["serve"], **changes}


def rendered(
    model: ModelDeployment,
    weights: Weights | None = None,
    placement: Placement | None = None,
    slot: int = 0,
) -> dict[str, Any]:
    resolved = resolve_engine(model)
    return replica_pod(
        Recipe(
            deployment=model,
            engine=resolved,
            revision=revision_of(model, resolved),
            weights=weights or weights_of(model, None, None),
            placement=placement or Placement(),
            snapshotter_image="snapshotter:1",
        ),
        slot,
    )


def launch(pod: dict[str, Any]) -> dict[str, Any]:
    env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    found: dict[str, Any] = json.loads(env["GLOWPLUG_LAUNCH"])
    return found


def by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["name"]: item for item in items}


def test_names_labels_and_owner() -> None:
    model = deployment()
    pod = rendered(model, slot=3)
    revision = revision_of(model, resolve_engine(model))
    assert pod["metadata"]["name"] == f"m-{revision}-3"
    assert pod["metadata"]["labels"] == {
        "glowplug.dev/model": "m",
        "glowplug.dev/revision": revision,
        "glowplug.dev/slot": "3",
        "glowplug.dev/state": "active",
        "app.kubernetes.io/managed-by": "glowplug",
        "app.kubernetes.io/component": "replica",
    }
    assert pod["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "glowplug.dev/v1alpha1",
            "kind": "ModelDeployment",
            "name": "m",
            "uid": "u1",
            "controller": True,
        }
    ]


def test_the_launcher_is_pid_1_and_knows_the_engine() -> None:
    pod = rendered(deployment(engine=engine(command=["serve", "{model_dir}"], metrics="vllm")))
    container = pod["spec"]["containers"][0]
    assert container["command"] == ["python3", "/glowplug/launcher.pyz", "run"]
    told = launch(pod)
    assert told["command"] == ["serve", "/models/model"]
    assert told["restore"]["mode"] == "process"
    assert told["restore"]["from"] == "s3://models/m"
    assert told["inflightMetrics"] == ["vllm:num_requests_running", "vllm:num_requests_waiting"]
    assert container["lifecycle"]["preStop"]["exec"]["command"][-1] == "drain"
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 9410}
    assert container["readinessProbe"]["periodSeconds"] == 1
    assert container["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert container["envFrom"] == [{"secretRef": {"name": "read"}}]
    assert "secret" not in json.dumps(told), "the launch configuration holds no secrets"


def test_sidecar_gives_the_credentials_to_the_restore_alone() -> None:
    pod = rendered(deployment(engine=engine(restore="Sidecar")))
    containers = by_name(pod["spec"]["containers"])
    assert "envFrom" not in containers["engine"]
    restore = containers["restore"]
    assert restore["envFrom"] == [{"secretRef": {"name": "read"}}]
    assert restore["image"] == "snapshotter:1"
    socket = restore["args"][restore["args"].index("--socket") + 1]
    assert launch(pod)["restore"] | {"mode": "sidecar", "socket": socket} == launch(pod)["restore"]


def test_init_form_has_no_launcher() -> None:
    pod = rendered(deployment(engine={"type": "llamacpp"}))
    container = pod["spec"]["containers"][0]
    assert container["command"][0] == "/bin/sh"
    assert container["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8080}
    assert container["lifecycle"]["preStop"] == {"sleep": {"seconds": 30}}
    assert [c["name"] for c in pod["spec"]["initContainers"]] == ["restore"]
    assert [v["name"] for v in pod["spec"]["volumes"]] == ["models"]
    replicas = json.loads(pod["metadata"]["annotations"]["glowplug.dev/replicas"])
    assert replicas[0]["launcherPort"] is None


def test_a_claim_is_mounted_and_not_restored() -> None:
    pod = rendered(deployment(model={"source": "pvc://weights/llama/8b"}))
    spec = pod["spec"]
    assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "weights", "readOnly": True}
    assert spec["containers"][0]["volumeMounts"][0] == {
        "name": "models",
        "mountPath": "/models/model",
        "readOnly": True,
        "subPath": "llama/8b",
    }
    assert launch(pod)["restore"]["mode"] == "none"


@pytest.mark.parametrize(("count", "asked"), [(0, None), (1, "1"), (4, "4")])
def test_gpus(count: int, asked: str | None) -> None:
    pod = rendered(deployment(gpu={"count": count}))
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"].get("nvidia.com/gpu") == asked
    assert resources["requests"].get("nvidia.com/gpu") == asked
    assert ("shm" in by_name(pod["spec"]["volumes"])) is (count > 1)


def test_drain_timeout_is_the_grace() -> None:
    pod = rendered(deployment(update={"drainTimeout": "90s"}))
    assert pod["spec"]["terminationGracePeriodSeconds"] == 100
    assert launch(pod)["drainTimeout"] == 90


def test_placement() -> None:
    placement = Placement("shared", "spot", {"gpu": "a100"}, ({"operator": "Exists"},))
    pod = rendered(deployment(), placement=placement)
    assert pod["spec"]["nodeSelector"] == {"gpu": "a100"}
    assert pod["spec"]["tolerations"] == [{"operator": "Exists"}]
    annotations = pod["metadata"]["annotations"]
    assert annotations["glowplug.dev/pool"] == "shared"
    assert annotations["glowplug.dev/rung"] == "spot"


def test_own_variables_come_first_and_win() -> None:
    env = [{"name": "GLOWPLUG_PORT", "value": "1"}, {"name": "MINE", "value": "x"}]
    container = rendered(deployment(engine=engine(env=env)))["spec"]["containers"][0]
    values = [(e["name"], e["value"]) for e in container["env"] if e["name"] != "GLOWPLUG_LAUNCH"]
    assert values == [
        ("GLOWPLUG_MODEL_DIR", "/models/model"),
        ("GLOWPLUG_PORT", "8000"),
        ("GLOWPLUG_SERVED_NAME", "m"),
        ("MINE", "x"),
    ]


def test_template_is_merged() -> None:
    template = {"spec": {"containers": [{"name": "engine", "securityContext": {"runAsUser": 1}}]}}
    container = rendered(deployment(template=template))["spec"]["containers"][0]
    assert container["securityContext"] == {"runAsUser": 1}
    assert container["image"] == "engine:1"


TAKEN = Weights("s3://store", "snapshot", digest="blake3:00", size=100 * MIB)
UNKNOWN = Weights("s3://models/m", "source")


@pytest.mark.parametrize(
    ("restore", "limits", "weights", "engine_limit", "status"),
    [
        ("Process", {"memory": "1Gi"}, TAKEN, 1124 * MIB, 1124 * MIB),
        ("Init", {"memory": "1Gi"}, TAKEN, 1124 * MIB, 1124 * MIB),
        ("Sidecar", {"memory": "1Gi"}, TAKEN, 1024 * MIB, 1380 * MIB),
        ("Process", {"memory": "1Gi"}, UNKNOWN, None, None),
        ("Sidecar", {"memory": "1Gi"}, UNKNOWN, 1024 * MIB, None),
        ("Process", {}, TAKEN, None, None),
    ],
    ids=[
        "weights on top",
        "init weights too",
        "a sidecar is charged itself",
        "no limit before the size is known",
        "a sidecar's engine keeps its own",
        "nothing asked, nothing set",
    ],
)
def test_memory(
    restore: str,
    limits: dict[str, str],
    weights: Weights,
    engine_limit: int | None,
    status: int | None,
) -> None:
    model = deployment(engine=engine(restore=restore, resources={"limits": limits}))
    memory = memory_of(resolve_engine(model), weights)
    assert memory.engine_limit == engine_limit
    assert (memory.status or {}).get("limit") == status
    resources = rendered(model, weights)["spec"]["containers"][0]["resources"]
    assert resources["limits"].get("memory") == (str(engine_limit) if engine_limit else None)


def revision(**changes: Any) -> str:
    model = deployment(**changes)
    return revision_of(model, resolve_engine(model))


@pytest.mark.parametrize(
    ("changes", "rolls"),
    [
        ({"scaling": {"maxReplicas": 3}}, False),
        ({"replicas": 2}, False),
        ({"update": {"drainTimeout": "1s"}}, False),
        ({"gateway": {"maxHeld": 1}}, False),
        ({"engine": engine(image="engine:2")}, True),
        ({"engine": engine(args=["-v"])}, True),
        ({"engine": engine(env=[{"name": "A", "value": "b"}])}, True),
        ({"model": {"source": "s3://models/other"}}, True),
        ({"gpu": {"count": 2}}, True),
        ({"gpu": {"pool": "other"}}, True),
        ({"template": {"spec": {"priorityClassName": "high"}}}, True),
    ],
)
def test_what_rolls_replicas(changes: dict[str, Any], rolls: bool) -> None:
    base = {"engine": engine()}
    assert (revision(**base | changes) != revision(**base)) is rolls


def test_a_snapshot_does_not_roll_replicas_but_new_ones_use_it() -> None:
    model = deployment()
    snapshot = parse(
        ModelSnapshot,
        {
            "metadata": {"name": "m-1", "namespace": "ns"},
            "spec": {"source": "s3://models/m"},
            "status": {
                "digest": "blake3:ab",
                "bytes": 5,
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        },
    )
    store = Store("s3://snapshots/x", "http://s3:8333", "write")
    weights = weights_of(model, snapshot, store)
    assert weights == Weights(
        "s3://snapshots/x", "snapshot", "blake3:ab", 5, "http://s3:8333", "write", "m-1"
    )
    before, after = rendered(model), rendered(model, weights)
    assert before["metadata"]["labels"] == after["metadata"]["labels"]
    assert launch(after)["restore"]["digest"] == "blake3:ab"
    assert after["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "write"}}]


@pytest.mark.parametrize("restore", ["Process", "Sidecar"])
def test_only_what_lies_in_the_store_is_read_through_the_nodes_cache(restore: str) -> None:
    model = deployment(engine=engine(restore=restore))
    snapshot = ModelSnapshot.model_validate(
        {
            "metadata": {"name": "m-1", "namespace": "ns"},
            "spec": {"source": "s3://models/m"},
            "status": {
                "digest": "blake3:ab",
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )
    store = Store("s3://snapshots/x", cache="http://glowplug-cache.caches")
    pod = rendered(model, weights_of(model, snapshot, store))
    assert pod["metadata"]["annotations"]["glowplug.dev/snapshot"] == "blake3:ab"
    assert launch(pod)["restore"]["cache"] == "http://glowplug-cache.caches"
    assert launch(pod)["restore"]["from"] == "s3://snapshots/x", "the way when the cache is gone"
    if restore == "Sidecar":
        args = pod["spec"]["containers"][1]["args"]
        assert args[args.index("--cache") + 1] == "http://glowplug-cache.caches"
    source = rendered(model, weights_of(model, None, store))
    assert launch(source)["restore"]["cache"] is None
    assert "glowplug.dev/snapshot" not in source["metadata"]["annotations"]
