"""What the example's server accepts, and how it says what it does not."""

import pytest
from engine import Load
from protocol import RequestError, metrics, parse

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": "other"}, "model"),
        ({"model": None}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "raw", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"image": "x"}]}]}, "messages[0].content"),
        ({"n": 2}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"stop": 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stream_options": True}, "stream_options"),
    ],
)
def test_a_bad_field_is_named(change: dict, param: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(CHAT | change, chat=True, served_name="tiny")
    assert refused.value.param == param
    assert param in str(refused.value)
    assert refused.value.status == (404 if param == "model" else 400)


@pytest.mark.parametrize("prompt", [None, "", ["a", "b"], 7])
def test_a_completion_needs_a_prompt(prompt: object) -> None:
    with pytest.raises(RequestError, match="prompt"):
        parse({"model": "tiny", "prompt": prompt}, chat=False, served_name="tiny")


@pytest.mark.parametrize("body", [None, [], "text", 3])
def test_a_body_must_be_an_object(body: object) -> None:
    with pytest.raises(RequestError, match="JSON object"):
        parse(body, chat=True, served_name="tiny")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 6}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"stop": "x"}, {"stop_seqs": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop_seqs": ["x", "y"]}),
        ({"stop": None, "user": "somebody"}, {}),
    ],
)
def test_options_reach_the_engine_by_its_names(given: dict, wanted: dict) -> None:
    options = parse(CHAT | given, chat=True, served_name="tiny").options
    assert options == {"messages": CHAT["messages"]} | wanted


def test_text_parts_are_joined_and_developers_speak_for_the_system() -> None:
    parts = [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]
    messages = [{"role": "developer", "content": parts}]
    request = parse(CHAT | {"messages": messages}, chat=True, served_name="tiny")
    assert request.options["messages"] == [{"role": "system", "content": "be brief"}]


def test_metrics_are_text_that_prometheus_reads() -> None:
    from prometheus_client.parser import text_string_to_metric_families

    text = metrics(Load(running=4, waiting=2, generated_tokens_total=9), 0.25, 'a"b\\c')
    samples = {
        sample.name: (sample.labels["model_name"], sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["vllm:num_requests_running"] == ('a"b\\c', 4)
    assert samples["vllm:num_requests_waiting"] == ('a"b\\c', 2)
    assert samples["vllm:kv_cache_usage_perc"] == ('a"b\\c', 0.25)
    assert samples["vllm:generation_tokens_total"] == ('a"b\\c', 9)
