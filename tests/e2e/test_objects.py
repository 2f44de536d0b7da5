"""What a user may write, and what is left when it is taken back."""

from __future__ import annotations

import pytest

from stack.ask import ask
from stack.stack import Stack


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("model", "source"), "ftp://models/x", "spec.model.source"),
        (("scaling", "maxReplicas"), -1, "spec.scaling.maxReplicas"),
        (("scaling", "minReplicas"), 9, "minReplicas"),
        (("engine", "command"), [], "command"),
        (("scaling", "idleAfter"), "soon", "spec.scaling.idleAfter"),
    ],
)
def test_a_bad_spec_is_refused_at_apply_with_a_sentence_naming_the_field(
    stack: Stack, path: tuple[str, ...], value: object, says: str
) -> None:
    body = stack.smollm2("bad")
    body["spec"]["scaling"]["maxReplicas"] = 4
    target = body["spec"]
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value

    refusal = stack.refused(body)

    assert says in refusal


async def test_deleting_a_model_leaves_nothing(stack: Stack) -> None:
    name = stack.deploy(stack.smollm2("gone"))
    answer = await ask(stack.gateway_url, name, "Say hello.", max_tokens=8)
    assert answer.finished, answer

    stack.delete(name)

    await stack.until(lambda: stack.objects_of(name) == [], 180)
