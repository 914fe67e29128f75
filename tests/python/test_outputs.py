"""RequestOutput and CompletionOutput, and the forms of a prompt."""

import fake_core  # noqa: F401
import numpy as np
import pytest
from octavo import (
    CompletionOutput,
    FlatLogprobs,
    Logprob,
    NotSupportedError,
    RequestOutput,
    ValidationError,
)
from octavo.inputs import ParsedPrompt, parse_prompts
from octavo.outputs import RequestStateStats


def request(outputs, **options):
    return RequestOutput("3", "Hi", [1, 2], None, outputs, True, **options)


def test_completion_fields():
    output = CompletionOutput(0, " there", [5, 6])
    assert (output.index, output.text, output.token_ids) == (0, " there", [5, 6])
    assert output.cumulative_logprob is output.logprobs is output.stop_reason is None
    assert not output.finished()
    output.finish_reason = "stop"
    assert output.finished()
    assert repr(output) == (
        "CompletionOutput(index=0, text=' there', token_ids=[5, 6], cumulative_logprob=None, "
        "logprobs=None, finish_reason=stop, stop_reason=None)"
    )


def test_request_fields_and_repr():
    output = request([CompletionOutput(0, "", [])], num_cached_tokens=16)
    assert (output.request_id, output.prompt, output.prompt_token_ids) == ("3", "Hi", [1, 2])
    assert output.finished
    assert output.num_cached_tokens == 16
    assert output.metrics is output.lora_request is output.prompt_logprobs is None
    assert repr(output).startswith("RequestOutput(request_id=3, prompt='Hi', prompt_token_ids=[1")
    with pytest.warns(UserWarning, match="novelty"):
        request([], novelty=1)


def test_outputs_are_merged():
    first = request([CompletionOutput(0, "a", [1])])
    first.finished = False
    later = request(
        [CompletionOutput(0, "b", [2], finish_reason="stop"), CompletionOutput(1, "c", [3])]
    )
    first.add(later, aggregate=True)
    assert first.finished
    assert [o.text for o in first.outputs] == ["ab", "c"]
    assert first.outputs[0].token_ids == [1, 2]
    assert first.outputs[0].finish_reason == "stop"
    first.add(request([CompletionOutput(0, "z", [9])]), aggregate=False)
    assert first.outputs[0].text == "z"


def test_the_place_among_the_prompts_of_a_call():
    assert request([]).prompt_index is None
    assert request([], prompt_index=7).prompt_index == 7


def test_times():
    stats = RequestStateStats(
        num_generation_tokens=5, arrival_time=1e9, queued_ts=10.0, scheduled_ts=10.5,
        first_token_ts=11.0, last_token_ts=13.0, first_token_latency=1.0,
    )  # fmt: skip
    assert (stats.queue_time, stats.prefill_time, stats.decode_time) == (0.5, 0.5, 2.0)
    assert (stats.inference_time, stats.e2e) == (2.5, 3.0)
    assert (stats.num_preemptions, stats.is_corrupted) == (0, False)


def test_times_of_points_that_were_not_reached():
    stats = RequestStateStats(queued_ts=10.0)
    assert stats.queue_time == stats.prefill_time == stats.decode_time == 0.0
    assert stats.inference_time == stats.e2e == 0.0
    only_prompt = RequestStateStats(queued_ts=10.0, scheduled_ts=11.0)
    assert (only_prompt.queue_time, only_prompt.prefill_time, only_prompt.e2e) == (1.0, 0.0, 0.0)


def test_logprobs_are_merged():
    for kind in (list, FlatLogprobs):
        steps = [kind(), kind(), kind()]
        for i, step in enumerate(steps):
            step.append({i: Logprob(-i / 2, i + 1, chr(97 + i))})
        first = request([CompletionOutput(0, "a", [0], 0.0, steps[0])])
        first.add(request([CompletionOutput(0, "b", [1], -0.5, steps[1])]), aggregate=True)
        first.add(request([CompletionOutput(0, "c", [2], -1.5, steps[2])]), aggregate=True)
        (output,) = first.outputs
        assert isinstance(output.logprobs, kind)
        assert [list(position) for position in output.logprobs] == [[0], [1], [2]]
        assert output.logprobs[2] == {2: Logprob(-1.0, 3, "c")}
        assert output.cumulative_logprob == -1.5
        assert len(steps[0]) == 1


def ids(prompts):
    return [prompt.token_ids for prompt in parse_prompts(prompts)]


def test_forms_of_a_prompt():
    assert parse_prompts("text") == [ParsedPrompt("text", None)]
    assert parse_prompts(["a", "b"]) == [ParsedPrompt("a", None), ParsedPrompt("b", None)]
    assert ids([1, 2, 3]) == [[1, 2, 3]]
    assert ids((1, 2)) == [[1, 2]]
    assert ids([[1, 2], [3]]) == [[1, 2], [3]]
    assert parse_prompts([[1, 2], "foo"])[1] == ParsedPrompt("foo", None)
    assert parse_prompts({"prompt": "x"}) == [ParsedPrompt("x", None)]
    both = {"prompt": "x", "prompt_token_ids": [4], "cache_salt": "s"}
    assert parse_prompts([both]) == [ParsedPrompt("x", [4], "s")]
    assert parse_prompts([]) == []
    assert ids([[]]) == [[]]


def test_arrays_are_token_ids():
    assert ids(np.array([1, 2, 3])) == [[1, 2, 3]]
    assert ids(np.array([[1, 2], [3, 4]], dtype=np.int32)) == [[1, 2], [3, 4]]
    assert ids([np.array([1, 2]), np.array([3], dtype=np.uint8)]) == [[1, 2], [3]]
    assert ids({"prompt_token_ids": np.array([7])}) == [[7]]
    assert ids([np.int64(3), np.int64(4)]) == [[3, 4]]
    for wrong in (np.array([1.5, 2.0]), {"prompt_token_ids": np.array([[1]])}, np.array([True])):
        with pytest.raises(TypeError):
            parse_prompts(wrong)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ({"prompt": 5}, "Prompt text should be a string"),
        ({"prompt_token_ids": "ab"}, "Token prompt should be a list of integers"),
        ({"prompt_token_ids": [1, "b"]}, "Token prompt should be a list of integers"),
        ({"prompt_token_ids": [1.0]}, "Token prompt should be a list of integers"),
        ([1, "b"], "Token prompt should be a list of integers"),
        ([[1, True]], "Token prompt should be a list of integers"),
        ([["a", "b"]], "Token prompt should be a list of integers"),
        ({}, "Prompt dictionary must contain text, tokens, or embeddings"),
        ({"text": "x"}, "Prompt dictionary must contain text, tokens, or embeddings"),
        (5, "Prompt should be a string, list of tokens, or dictionary"),
        (None, "Prompt should be a string, list of tokens, or dictionary"),
        (b"bytes", "Prompt should be a string, list of tokens, or dictionary"),
        ([None], "Prompt should be a string, list of tokens, or dictionary"),
        ([1.5], "Prompt should be a string, list of tokens, or dictionary"),
        (
            {"encoder_prompt": "a", "decoder_prompt": None},
            "Cannot pass encoder-decoder prompt to decoder-only models",
        ),
    ],
)
def test_wrong_forms(prompt, text):
    with pytest.raises(TypeError, match=text):
        parse_prompts(prompt)


def test_unsupported_and_empty_options():
    with pytest.raises(NotSupportedError, match="multi_modal_data"):
        parse_prompts({"prompt": "x", "multi_modal_data": {"image": 1}})
    with pytest.raises(NotSupportedError, match="prompt_embeds"):
        parse_prompts({"prompt_embeds": [[1.0]]})
    for salt in ("", 5):
        with pytest.raises(ValidationError, match="cache_salt must be a non-empty string"):
            parse_prompts({"prompt": "x", "cache_salt": salt})
