"""Pools: which one a model runs in, and what their nodes offer."""

from typing import Any

import pytest

from glowplug.api import GPUPool, ModelDeployment, parse
from glowplug.control.objects import Held, Kind
from glowplug.control.pools import Choice, choose_pool, trim_node
from glowplug.kube import GPUPOOLS


def pools(*specs: dict[str, Any]) -> tuple[Held[GPUPool], ...]:
    kind = Kind(GPUPOOLS, GPUPool, lambda key, news: None)
    for i, spec in enumerate(specs):
        metadata = {
            "name": spec.get("name", f"p{i}"),
            "uid": f"u{i}",
            "resourceVersion": str(i + 1),
            "generation": 1,
            "creationTimestamp": f"2026-01-01T00:00:0{i}Z",
        }
        body = {key: value for key, value in spec.items() if key != "name"}
        kind.put({"metadata": metadata, "spec": {"backend": "static", **body}})
    return kind.all()


def model(**gpu: Any) -> ModelDeployment:
    return parse(
        ModelDeployment,
        {
            "metadata": {"name": "m", "namespace": "ns"},
            "spec": {"model": {"source": "s3://a/b"}, "gpu": gpu},
        },
    )


def outcome(choice: Choice) -> str | None:
    if choice.refused is not None:
        return choice.refused.reason
    return choice.pool.metadata.name if choice.pool else None


@pytest.mark.parametrize(
    ("specs", "gpu", "expected"),
    [
        ([], {}, None),
        ([{"default": True}], {}, "p0"),
        ([{}], {}, "NoDefaultPool"),
        ([{}], {"count": 0}, None),
        ([{"default": True}, {"default": True}], {}, "p0"),
        ([{}, {}], {"pool": "p1"}, "p1"),
        ([{}], {"pool": "nowhere"}, "PoolNotFound"),
        ([{"allowedNamespaces": ["other"]}], {"pool": "p0"}, "PoolNotAllowed"),
        ([{"allowedNamespaces": ["ns"]}], {"pool": "p0"}, "p0"),
        ([{"budget": -1}], {"pool": "p0"}, "PoolInvalid"),
        ([{"budget": -1}, {"default": True}], {}, "p1"),
    ],
    ids=[
        "no pools, anywhere",
        "the default",
        "a default is needed",
        "no GPU, no pool",
        "of two defaults the oldest",
        "named",
        "named and missing",
        "not open",
        "open",
        "broken",
        "a broken one beside the default",
    ],
)
def test_choice(specs: list[dict[str, Any]], gpu: dict[str, Any], expected: str | None) -> None:
    assert outcome(choose_pool(model(**gpu), pools(*specs))) == expected


def test_nodes_offer_extended_resources_only() -> None:
    node = trim_node(
        {
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "labels": {"a": "b"}},
            "status": {"allocatable": {"cpu": "4", "nvidia.com/gpu": "8", "memory": "1Gi"}},
        }
    )
    assert node.offers == {"nvidia.com/gpu": 8}
