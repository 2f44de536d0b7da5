"""The census of a model: where each replica stands."""

import pytest

from glowplug.observe import ReplicaState, census, model_keys

from .conftest import pod


def state(phase: str = "ready", **changes) -> ReplicaState:
    return ReplicaState(phase, at=0.0, **changes)


@pytest.mark.parametrize(
    ("seen", "launcher", "standing"),
    [
        pytest.param(pod(), None, "starting", id="no word yet"),
        pytest.param(pod(ready=True), None, "ready", id="kubelet's word, the launcher's unknown"),
        pytest.param(pod(), state("restoring"), "starting", id="restoring"),
        pytest.param(pod(), state("ready"), "ready", id="the launcher is ahead of kubelet"),
        pytest.param(pod(ready=True), state("starting"), "starting", id="engine restarts"),
        pytest.param(
            pod(ready=True), state("failed", reachable=False), "starting", id="kubelet is late"
        ),
        pytest.param(
            pod(ready=True), state("starting", reachable=False), "ready", id="launcher cut off"
        ),
        pytest.param(pod(), state("asleep"), "asleep", id="asleep"),
        pytest.param(pod(), state("failed"), "starting", id="failed: kubelet restarts it"),
        pytest.param(pod(ready=True), state("draining"), "draining", id="preStop runs"),
        pytest.param(
            pod(labels={"glowplug.dev/state": "draining"}), state(), "draining", id="marked"
        ),
        pytest.param(pod(deleting=True), state(), "draining", id="deleted by others"),
        pytest.param(pod(phase="Failed"), state(), "ended", id="evicted"),
    ],
)
def test_standing(seen, launcher, standing):
    found = census("ns/m", [seen], lambda key: launcher)
    assert [one.standing for one in found.seen] == [standing]
    counted = {name: getattr(found, name) for name in ("ready", "starting", "asleep", "draining")}
    assert counted == {name: int(name == standing) for name in counted}


def test_other_models_and_strangers_are_passed_over():
    stranger = pod("x", annotations={})
    found = census("ns/m", [pod(), pod("other-0", model="other"), stranger], lambda key: None)
    assert [one.pod.name for one in found.seen] == ["m-0"]
    assert model_keys(pod("other-0", model="other")) == ["ns/other"]
    assert model_keys(stranger) == []
