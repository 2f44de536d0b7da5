"""Reading objects: what is accepted, what it becomes, and which sentence refuses the rest."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from glowplug.api import (
    InvalidObject,
    ModelDeployment,
    Scaling,
    Schedule,
    parse,
)

SAMPLES = yaml.safe_load((Path(__file__).parent / "samples.yaml").read_text())


def body(sample: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "sample", **sample.get("metadata", {})}
    return {"metadata": metadata, "spec": sample["spec"]}


@pytest.mark.parametrize("sample", SAMPLES["good"], ids=lambda s: s["name"])
def test_good_objects_parse(sample):
    parsed = parse(sample["kind"], body(sample))

    assert parsed.kind == sample["kind"]
    assert parsed.key == "sample" if sample["kind"] == "GPUPool" else "/sample"


@pytest.mark.parametrize("sample", SAMPLES["bad"], ids=lambda s: s["name"])
def test_bad_objects_name_the_field(sample):
    with pytest.raises(InvalidObject) as refused:
        parse(sample["kind"], body(sample))

    assert any(sample["field"] in problem for problem in refused.value.problems)


def test_all_problems_are_told_at_once():
    spec = {"model": {"source": "s3://a/b"}, "replicas": -1, "scaling": {"idleAfter": "soon"}}

    with pytest.raises(InvalidObject) as refused:
        parse(ModelDeployment, {"metadata": {"name": "m", "namespace": "n"}, "spec": spec})

    assert [p.split(":")[0] for p in refused.value.problems] == [
        "spec.replicas",
        "spec.scaling.idleAfter",
    ]
    assert str(refused.value).startswith("ModelDeployment n/m is invalid: ")


def test_an_unknown_kind_is_refused():
    with pytest.raises(InvalidObject, match="kind must be one of ModelDeployment"):
        parse("ModelRoute", {})


def test_written_forms_become_numbers_and_the_rest_defaults():
    spec = {
        "model": {"source": "s3://a/b"},
        "gpu": {"memory": "1.5Gi"},
        "scaling": {"idleAfter": "1h30m0.5s", "slo": {"attainment": "99.5%"}},
    }

    parsed = parse(ModelDeployment, {"metadata": {"name": "m"}, "spec": spec}).spec

    assert parsed.gpu.memory == 1_610_612_736
    assert parsed.scaling.idle_after == 5400.5
    assert parsed.scaling.slo.attainment == 0.995
    assert parsed.scaling.slo.queue_wait == 2.0
    assert parsed.gateway.max_hold == 600.0
    assert parsed.update.drain_timeout == 300.0
    assert parsed.engine.type == "vllm"


def test_code_may_pass_numbers_and_python_names():
    scaling = Scaling(
        idle_after=30.0,
        min_replicas=1,
        schedule=(Schedule(start="0 8 * * *", end="0 9 * * *", replicas=2),),
    )

    assert scaling.idle_after == 30.0
    assert Scaling.model_validate({"idleAfter": "30s", "minReplicas": 1}).min_replicas == 1


def test_what_a_newer_version_knows_is_left_alone():
    spec = {"model": {"source": "s3://a/b", "compression": "zstd"}, "routes": []}

    assert parse(ModelDeployment, {"metadata": {"name": "m"}, "spec": spec}).served_name == "m"
