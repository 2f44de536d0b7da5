"""The census of a model: where each replica stands, and sentences for what keeps it back."""

import pytest

from glowplug.observe import ReplicaState, census, model_keys

from .conftest import container, pod


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


def test_unschedulable_names_the_pod_and_quotes_the_scheduler():
    sentence = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    found = census("ns/m", [pod(unschedulable=sentence)], lambda key: None)
    assert found.unschedulable == (f"Pod m-0: {sentence}",)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        pytest.param(
            {"waiting_reason": "ImagePullBackOff", "waiting_message": "manifest unknown"},
            "Pod m-0, container engine: ImagePullBackOff: manifest unknown",
            id="image",
        ),
        pytest.param(
            {"waiting_reason": "CrashLoopBackOff", "exit_code": 3, "message": "no such model\n"},
            "Pod m-0, container engine: CrashLoopBackOff (exit code 3): no such model",
            id="crash loop with last words",
        ),
        pytest.param(
            {"terminated_reason": "OOMKilled", "exit_code": 137},
            "Pod m-0, container engine: OOMKilled (exit code 137)",
            id="out of memory",
        ),
        pytest.param(
            {"exit_code": 1, "message": '{"event":"error","message":"key a/b: 403"}'},
            "Pod m-0, container engine: Error (exit code 1): key a/b: 403",
            id="a snapshotter's error event",
        ),
    ],
)
def test_failures_are_sentences(broken, sentence):
    found = census(
        "ns/m", [pod(containers=(container(running=False, **broken),))], lambda key: None
    )
    assert found.failures == (sentence,)


def test_a_launchers_error_is_a_failure_and_normal_waiting_is_not():
    waiting = container(running=False, waiting_reason="ContainerCreating")
    assert census("ns/m", [pod(containers=(waiting,))], lambda key: None).failures == ()
    failed = state("failed", error="restore: blake3 of model.safetensors does not match")
    found = census("ns/m", [pod()], lambda key: failed)
    assert found.failures == ("Pod m-0: restore: blake3 of model.safetensors does not match",)
