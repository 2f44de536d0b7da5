"""The CRDs against a real API server: accepted, strict, scalable, and silent in GitOps."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config
from kubernetes.client import ApiClient

from glowplug.api import InvalidObject, meta, parse
from glowplug.api.parsing import KINDS

REPOSITORY = Path(__file__).parents[2]
SAMPLES = yaml.safe_load((REPOSITORY / "tests/unit/api/samples.yaml").read_text())
FOUR_LINES = SAMPLES["good"][0]
EVERYTHING = SAMPLES["good"][1]


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    status: int
    text: str

    @property
    def body(self) -> dict[str, Any]:
        """The body of a success."""
        assert self.status < 300, self.text
        return json.loads(self.text)


class Server:
    """A real API server, spoken to as kubectl does: nothing in a body is cleaned up on the way."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    def send(
        self, method: str, path: str, body: Any = None, *, type: str = "json", **headers: str
    ) -> Answer:
        headers = {"Content-Type": f"application/{type}", "Accept": "application/json", **headers}
        url = f"{self.client.configuration.host}{path}"
        data = None if body is None else json.dumps(body)
        sent = self.client.rest_client.pool_manager.request(method, url, body=data, headers=headers)
        return Answer(sent.status, sent.data.decode())

    def create(self, sample: dict[str, Any], *, dry_run: bool = False) -> Answer:
        query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        return self.send("POST", collection(sample) + query, body_of(sample))

    def apply(self, sample: dict[str, Any]) -> Answer:
        query = "?fieldManager=argocd&fieldValidation=Strict"
        return self.send("PATCH", path_of(sample) + query, body_of(sample), type="apply-patch+yaml")

    def patch(
        self, sample: dict[str, Any], change: dict[str, Any], subresource: str = ""
    ) -> Answer:
        path = f"{path_of(sample)}{subresource}?fieldValidation=Strict"
        return self.send("PATCH", path, change, type="merge-patch+json")


def collection(sample: dict[str, Any]) -> str:
    kind = KINDS[sample["kind"]]
    namespace = "/namespaces/default" if kind.namespaced else ""
    return f"/apis/{meta.API_VERSION}{namespace}/{kind.plural}"


def path_of(sample: dict[str, Any]) -> str:
    return f"{collection(sample)}/{body_of(sample)['metadata']['name']}"


def body_of(sample: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": meta.API_VERSION,
        "kind": sample["kind"],
        "metadata": {"name": "sample", **sample.get("metadata", {})},
        "spec": sample["spec"],
    }


@pytest.fixture(scope="module")
def server(apiserver: Path) -> Iterator[Server]:
    with config.new_client_from_config(str(apiserver)) as client:
        server = Server(client)
        for path in sorted((REPOSITORY / "crds").glob("*.yaml")):
            install(server, yaml.safe_load(path.read_text()))
        yield server


def install(server: Server, crd: dict[str, Any]) -> None:
    """Apply, not create: other tests may have installed it before."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
    query = "?fieldManager=test&force=true&fieldValidation=Strict"
    server.send("PATCH", path + query, crd, type="apply-patch+yaml").body  # noqa: B018
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        conditions = server.send("GET", path).body["status"]["conditions"] or []
        states = {c["type"]: c["status"] for c in conditions}
        assert "NonStructuralSchema" not in states, conditions
        if states.get("Established") == "True":
            return
        time.sleep(0.05)
    pytest.fail(f"not established within 20 s: {conditions}")


@pytest.fixture
def served(server: Server) -> Iterator[dict[str, Any]]:
    """A ModelDeployment of four lines, stored."""
    yield server.create(FOUR_LINES).body
    server.send("DELETE", path_of(FOUR_LINES))


@pytest.mark.parametrize("sample", SAMPLES["good"], ids=lambda s: s["name"])
def test_good_objects_are_accepted_by_both(server: Server, sample: dict[str, Any]) -> None:
    stored = server.create(sample, dry_run=True).body

    assert stored["spec"] == sample["spec"], "the API server added or removed something"
    assert parse(sample["kind"], stored).kind == sample["kind"]


@pytest.mark.parametrize("sample", SAMPLES["bad"], ids=lambda s: s["name"])
def test_bad_objects_are_refused_by_both(server: Server, sample: dict[str, Any]) -> None:
    answer = server.create(sample, dry_run=True)

    with pytest.raises(InvalidObject):
        parse(sample["kind"], body_of(sample))
    if sample.get("parse_only"):
        assert answer.status == 201
        return
    assert answer.status == 422
    assert sample["says"] in answer.text
    assert sample["field"] in answer.text


def test_a_misspelt_field_is_refused(server: Server) -> None:
    sample = {**FOUR_LINES, "spec": {**FOUR_LINES["spec"], "scalling": {}}}

    answer = server.create(sample, dry_run=True)

    assert answer.status == 400
    assert 'unknown field \\"spec.scalling\\"' in answer.text


def test_the_template_keeps_what_nobody_knows(server: Server) -> None:
    template = {"spec": {"initContainers": [{"name": "warm", "x-new": {"deep": [1, "two"]}}]}}
    sample = {**FOUR_LINES, "spec": {**FOUR_LINES["spec"], "template": template}}

    assert server.create(sample, dry_run=True).body["spec"]["template"] == template


@pytest.mark.parametrize("sample", [FOUR_LINES, EVERYTHING], ids=lambda s: s["name"])
def test_applying_twice_changes_nothing(server: Server, sample: dict[str, Any]) -> None:
    first = server.apply(sample).body
    second = server.apply(sample).body
    server.send("DELETE", path_of(sample))

    assert second == first, "not even the resourceVersion or the generation may move"
    assert first["spec"] == sample["spec"]


def test_scale_pins_replicas_that_nobody_had_set(server: Server, served: dict[str, Any]) -> None:
    change = {"spec": {"replicas": 3}}  # what `kubectl scale --replicas=3` sends

    scale = server.patch(FOUR_LINES, change, "/scale").body

    assert scale["spec"]["replicas"] == 3
    assert server.send("GET", path_of(FOUR_LINES)).body["spec"]["replicas"] == 3


def test_scale_shows_status_and_keeps_bounds(server: Server, served: dict[str, Any]) -> None:
    status = {"replicas": 2, "selector": f"{meta.LABEL_MODEL}=sample"}
    assert server.patch(FOUR_LINES, {"spec": {"replicas": 2}}).body
    assert server.patch(FOUR_LINES, {"status": status}, "/status").body

    scale = server.send("GET", path_of(FOUR_LINES) + "/scale").body
    assert scale["status"] == status

    scale["spec"]["replicas"] = 4
    scale = server.send("PUT", path_of(FOUR_LINES) + "/scale", scale).body
    assert server.send("GET", path_of(FOUR_LINES)).body["spec"]["replicas"] == 4

    scale["spec"]["replicas"] = -1
    assert server.send("PUT", path_of(FOUR_LINES) + "/scale", scale).status == 422


def test_replicas_can_be_pinned_and_released(server: Server, served: dict[str, Any]) -> None:
    pinned = server.patch(FOUR_LINES, {"spec": {"replicas": 0}}).body
    assert pinned["spec"]["replicas"] == 0

    released = server.patch(FOUR_LINES, {"spec": {"replicas": None}}).body
    assert "replicas" not in released["spec"]


def test_status_holds_what_the_operator_writes(server: Server, served: dict[str, Any]) -> None:
    status = {
        "observedGeneration": 1,
        "revision": "0a1b2c3d",
        "replicas": 1,
        "readyReplicas": 1,
        "selector": f"{meta.LABEL_MODEL}=sample",
        "tiers": {"hot": 1, "asleep": 0, "starting": 0},
        "decision": {"desired": 1, "reason": "1 held request.", "at": "2026-01-01T00:00:00Z"},
        "coldStart": {
            "last": {
                "total": 6.2,
                "stages": {"schedule": 0.1, "restore": 2.5},
                "hidden": {"load": 0.5},
                "path": "cold",
                "at": "2026-01-01T00:00:00Z",
            },
            "p50": 6.2,
            "p90": 6.2,
            "samples": 1,
            "paths": {"cold": {"samples": 1, "p50": {"restore": 2.5}, "p90": {"restore": 2.5}}},
        },
        "cost": {"dollarsPerHour": 1.2, "dollarsPer1kTokens": 0.01, "utilization": 0.5},
        "snapshot": {"name": "a", "digest": "blake3:00", "bytes": 12, "verified": "snapshot"},
        "memory": {"limit": 100, "parts": {"engine": 60, "snapshot": 40}},
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Serving",
                "message": "1 replica serves.",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "observedGeneration": 1,
            }
        ],
    }

    written = server.patch(FOUR_LINES, {"status": status}, "/status").body

    assert written["status"] == status
    assert written["metadata"]["generation"] == served["metadata"]["generation"]


def test_get_shows_whether_it_serves_and_what_it_costs(server: Server) -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"

    shown = server.send("GET", collection(FOUR_LINES), Accept=table).body

    names = [column["name"] for column in shown["columnDefinitions"]]
    assert names == ["Name", "Ready", "Reason", "Hot", "Wanted", "Asleep", "Cold s", "USD/h", "Age"]


def test_short_names_and_categories_are_served(server: Server) -> None:
    listed = server.send("GET", f"/apis/{meta.API_VERSION}").body["resources"]

    kinds = {r["kind"]: r for r in listed if "/" not in r["name"]}
    assert {kind: r["shortNames"] for kind, r in kinds.items()} == {
        "ModelDeployment": ["mdep"],
        "ModelSnapshot": ["msnap"],
        "GPUPool": ["gpool"],
    }
    assert all(r["categories"] == ["glowplug"] for r in kinds.values())
    assert not kinds["GPUPool"]["namespaced"]
