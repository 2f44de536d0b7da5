"""Status and explanation as a reader sees them."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console, RenderableType

from glowplug.cli import render
from glowplug.cli.view import Condition, model

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def mdep(**status: object) -> dict:
    return {
        "metadata": {"namespace": "demo", "name": "smollm2"},
        "spec": {"model": {"source": "s3://models/smollm2"}},
        "status": status,
    }


SERVING = mdep(
    replicas=2,
    readyReplicas=1,
    tiers={"hot": 1, "starting": 1},
    decision={"desired": 2, "reason": "7 requests need 2 replicas.", "at": "2026-11-23T11:59:50Z"},
    coldStart={"p50": 3.41, "samples": 5},
    cost={"dollarsPerHour": 2.4},
    conditions=[
        {
            "type": "Ready",
            "status": "True",
            "reason": "Serving",
            "message": "1 of 2 replicas serves.",
            "lastTransitionTime": "2026-11-23T11:58:00Z",
        },
        {
            "type": "CapacityAvailable",
            "status": "False",
            "reason": "NoGPU",
            "message": "1 Pod waits: Insufficient nvidia.com/gpu.",
            "lastTransitionTime": "2026-11-23T11:59:57Z",
        },
    ],
)


def printed(what: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    console.print(what)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_one_line_a_model_says_if_it_serves_how_warm_it_is_and_what_it_costs() -> None:
    [head, line] = printed(render.status([model(SERVING)]))
    assert head.split() == ["NAME", "SERVING", "REPLICAS", "TIERS", "COLD", "START", "$/H"]
    assert line.split() == [
        *("smollm2", "yes", "1/2"),
        *("1", "hot,", "1", "starting"),
        *("3.41", "s", "(n=5)"),
        "2.40",
    ]


def test_a_model_without_status_is_a_line_too() -> None:
    [_, line] = printed(render.status([model(mdep())], namespaces=True))
    assert line.split() == ["demo", "smollm2", "not", "seen", "yet", "0/0", "none", "-", "-"]


def test_detail_shows_what_is_wrong_first() -> None:
    lines = printed(render.detail(model(SERVING), NOW))
    assert lines[3:] == [
        "! CapacityAvailable=False 1 Pod waits: Insufficient nvidia.com/gpu. (NoGPU, 3 s ago)",
        "✓ Ready=True 1 of 2 replicas serves. (Serving, 2 min ago)",
    ]


def test_detail_of_a_model_that_nobody_looked_at_asks_for_the_operator() -> None:
    assert "Is it running?" in printed(render.detail(model(mdep()), NOW))[-1]


@pytest.mark.parametrize(
    ("kind", "status", "bad"),
    [
        ("Ready", "True", False),
        ("Ready", "False", True),
        ("Ready", "Unknown", True),
        ("ScalingLimited", "False", False),
        ("ScalingLimited", "True", True),
    ],
)
def test_bad_conditions(kind: str, status: str, bad: bool) -> None:
    assert render.is_bad(Condition(kind, status, "", "", "")) is bad


def test_explanation_goes_from_what_is_to_why() -> None:
    assert printed(render.explanation(model(SERVING), NOW))[:3] == [
        "smollm2: 1/2 replicas ready, 1 hot, 1 starting.",
        "Decided 10 s ago: 2 replicas.",
        "Why: 7 requests need 2 replicas.",
    ]


def test_explanation_of_a_pinned_model_says_how_to_release_it() -> None:
    body = SERVING | {"spec": {"replicas": 2}}
    assert printed(render.explanation(model(body), NOW))[1] == (
        "spec.replicas pins the count at 2; `glowplug release smollm2` lets Glowplug decide again."
    )


def test_explanation_without_a_decision() -> None:
    assert printed(render.explanation(model(mdep()), NOW))[:2] == [
        "smollm2: 0/0 replicas ready.",
        "No decision has been taken yet.",
    ]
