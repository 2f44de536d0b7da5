"""Requests: what is retried, what is not, and what refusals turn into."""

import pytest

from glowplug import kube
from glowplug.kube import CONFIGMAPS, GPUPOOLS, PODS
from glowplug.kube.errors import error_from

from .conftest import config_map


@pytest.mark.parametrize("failure", [429, 500, 503, "cut"])
async def test_idempotent_requests_are_retried(api, client, failure):
    api.failures = [failure, failure]
    await client.get(CONFIGMAPS, "m", "default")
    assert len(api.requests) == 3


async def test_retries_are_bounded(api, client):
    api.failures = [503] * 10
    with pytest.raises(kube.ApiError, match="refused by the test"):
        await client.get(CONFIGMAPS, "m", "default")
    assert len(api.requests) == 4


@pytest.mark.parametrize(("failure", "sent"), [(429, 2), (500, 1), ("cut", 1)])
async def test_a_create_is_repeated_only_when_it_surely_was_not_done(api, client, failure, sent):
    api.failures = [failure]
    if sent == 1:
        with pytest.raises(kube.ApiError):
            await client.create(CONFIGMAPS, config_map("m", 1), dry_run=False)
    else:
        await client.create(CONFIGMAPS, config_map("m", 1))
    assert len(api.asked("POST")) == sent
    assert api.asked("POST")[0] == {"fieldValidation": "Strict"}


async def test_nobody_listening_is_unreachable_and_names_the_server(api, client, tmp_path):
    kubeconfig = (tmp_path / "kubeconfig").read_text().replace(api.url, "http://127.0.0.1:1/")
    (tmp_path / "dead").write_text(kubeconfig)
    dead = await kube.Client.connect(str(tmp_path / "dead"))
    with pytest.raises(kube.Unreachable, match=r"127\.0\.0\.1:1") as caught:
        await dead.create(CONFIGMAPS, config_map("m", 1))
    assert caught.value.never_sent
    await dead.close()


async def test_deleting_what_is_gone_is_done(api, client):
    api.failures = [404]
    await client.delete(PODS, "p", "default", uid="u")
    api.failures = [409]
    with pytest.raises(kube.Conflict):
        await client.delete(PODS, "p", "default", uid="u")


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (404, "NotFound", kube.NotFound),
        (409, "AlreadyExists", kube.AlreadyExists),
        (409, "Conflict", kube.Conflict),
        (422, "Invalid", kube.Invalid),
        (403, "Forbidden", kube.Forbidden),
        (410, "Expired", kube.Expired),
        (429, "TooManyRequests", kube.TooManyRequests),
        (418, "Teapot", kube.ApiError),
    ],
)
def test_refusals_become_errors_with_the_servers_sentence(status, reason, expected):
    body = b'{"kind":"Status","reason":"%s","message":"spec.x: no","details":{"causes":[1]}}'
    error = error_from(status, body % reason.encode(), "3")
    assert type(error) is expected
    assert error.message == "spec.x: no"
    assert error.details == {"causes": [1]}
    assert error.retry_after == 3.0


def test_an_answer_that_is_no_status_is_quoted():
    assert error_from(502, b"<html>bad gateway</html>").message == "<html>bad gateway</html>"


def test_paths():
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("ns", "p", "status") == "/api/v1/namespaces/ns/pods/p/status"
    assert GPUPOOLS.path(None, "a b") == "/apis/glowplug.dev/v1alpha1/gpupools/a%20b"
    with pytest.raises(ValueError, match="a namespace is needed"):
        PODS.path(None, "p")
