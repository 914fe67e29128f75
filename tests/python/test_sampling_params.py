"""SamplingParams: the fields, defaults, ranges and error texts of vLLM."""

import copy
import dataclasses
import math
import pickle

import fake_core  # noqa: F401
import numpy as np
import pytest
from octavo import NotSupportedError, OctavoError, SamplingParams, ValidationError
from octavo.sampling_params import (
    GuidedDecodingParams,
    RepetitionDetectionParams,
    RequestOutputKind,
    SamplingType,
    StructuredOutputsParams,
)

NAN, INF = math.nan, math.inf

REFUSED = [
    ("n", 0, "n must be at least 1, got 0."),
    ("n", -3, "n must be at least 1, got -3."),
    ("n", 16385, "n must be at most 16384, got 16385."),
    ("n", 1.0, "n must be an int, but is of type <class 'float'>"),
    ("n", True, "n must be an int, but is of type <class 'bool'>"),
    ("n", "2", "n must be an int, but is of type <class 'str'>"),
    ("presence_penalty", 2.5, "presence_penalty must be in [-2, 2], got 2.5."),
    ("presence_penalty", NAN, "presence_penalty must be in [-2, 2], got nan."),
    ("frequency_penalty", -2.1, "frequency_penalty must be in [-2, 2], got -2.1."),
    ("repetition_penalty", 0.0, "repetition_penalty must be greater than zero, got 0.0."),
    ("repetition_penalty", INF, "repetition_penalty must be a finite number"),
    ("temperature", -0.1, "temperature must be non-negative"),
    ("temperature", 2.01, "temperature must be in [0, 2]"),
    ("temperature", NAN, "temperature must be a finite number"),
    ("temperature", INF, "temperature must be a finite number"),
    ("temperature", "hot", "temperature must be a number"),
    ("temperature", None, "temperature must be a number"),
    ("temperature", False, "temperature must be a number"),
    ("top_p", 0.0, "top_p must be in (0, 1], got 0.0."),
    ("top_p", 1.01, "top_p must be in (0, 1], got 1.01."),
    ("top_p", NAN, "top_p must be in (0, 1], got nan."),
    ("top_k", -2, "top_k must be 0 (disable), or at least 1, got -2."),
    ("top_k", 1.5, "top_k must be an integer, got float"),
    ("top_k", True, "top_k must be an integer, got bool"),
    ("min_p", -0.1, "min_p must be in [0, 1], got -0.1."),
    ("min_p", 1.1, "min_p must be in [0, 1], got 1.1."),
    ("min_p", NAN, "min_p must be in [0, 1], got nan."),
    ("seed", 1.5, "seed must be an integer"),
    ("seed", 2**64, "seed must be a 64-bit integer"),
    ("stop", "", "stop cannot contain an empty string."),
    ("stop", ["a", ""], "stop cannot contain an empty string."),
    ("stop", ["a"] * 1025, "stop must have at most 1024 strings, got 1025."),
    ("stop", ["a" * 65536, "b"], "stop must have at most 65536 characters in all, got 65537."),
    ("stop", [1], "stop must contain only strings"),
    ("stop", 1, "stop must be a list"),
    ("stop_token_ids", ["1"], "stop_token_ids must contain only integers"),
    ("stop_token_ids", [True], "stop_token_ids must contain only integers"),
    ("stop_token_ids", 5, "stop_token_ids must be a list"),
    ("max_tokens", -1, "max_tokens must be at least 1, got -1."),
    ("max_tokens", 1.5, "max_tokens must be an integer"),
    ("min_tokens", -1, "min_tokens must be greater than or equal to 0, got -1."),
    ("min_tokens", 17, "min_tokens must be less than or equal to max_tokens=16, got 17."),
    ("ignore_eos", 1, "ignore_eos must be a bool"),
    ("skip_special_tokens", None, "skip_special_tokens must be a bool"),
    ("logprobs", -2, "logprobs must be non-negative or -1, got -2."),
    ("logprobs", 1.5, "logprobs must be an integer, got float."),
    ("logprobs", "5", "logprobs must be an integer, got str."),
    ("prompt_logprobs", -2, "prompt_logprobs must be non-negative or -1, got -2."),
    ("presence_penalty", "1", "presence_penalty must be a number, got str."),
    ("frequency_penalty", None, "frequency_penalty must be a number, got NoneType."),
    ("frequency_penalty", 2.1, "frequency_penalty must be in [-2, 2], got 2.1."),
    ("repetition_penalty", -1, "repetition_penalty must be greater than zero, got -1.0."),
    ("repetition_penalty", NAN, "repetition_penalty must be a finite number"),
    ("repetition_penalty", 10**400, "repetition_penalty must be a number that a float can hold."),
    ("logit_bias", [1], "logit_bias must be a dict of token ids to numbers, got list."),
    ("logit_bias", {"5": 1.0}, "logit_bias must have integers as keys"),
    ("logit_bias", {True: 1.0}, "logit_bias must have integers as keys"),
    ("logit_bias", {5: "1"}, "logit_bias must be a number, got str."),
    ("logit_bias", {5: NAN}, "logit_bias must be a finite number, got nan."),
    ("logit_bias", {5: -INF}, "logit_bias must be a finite number, got -inf."),
    ("logit_bias", dict.fromkeys(range(1025), 1), "logit_bias must have at most 1024 entries"),
    ("allowed_token_ids", [], "allowed_token_ids is not None and empty!"),
    ("allowed_token_ids", range(1025), "allowed_token_ids must have at most 1024 ids, got 1025."),
    ("allowed_token_ids", 5, "allowed_token_ids must be a list, got int."),
    ("allowed_token_ids", [1.0], "allowed_token_ids must contain only integers"),
    ("bad_words", "word", "bad_words must be a list, got str."),
    ("bad_words", [5], "bad_words must contain only strings, got int."),
    ("bad_words", ["a", ""], "bad_words cannot contain an empty string."),
    ("bad_words", ["a"] * 1025, "bad_words must have at most 1024 strings, got 1025."),
    ("bad_words", ["a" * 65537], "bad_words must have at most 65536 characters in all"),
    ("logprob_token_ids", "1", "logprob_token_ids must be a list, got str."),
    ("logprob_token_ids", ["1"], "logprob_token_ids must contain only integers"),
    ("logprob_token_ids", range(129), "logprob_token_ids must have at most 128 ids, got 129."),
    ("flat_logprobs", 1, "flat_logprobs must be a bool, got int."),
    ("skip_clone", None, "skip_clone must be a bool, got NoneType."),
    ("stop_token_ids", range(129), "stop_token_ids must have at most 128 ids, got 129."),
    ("output_kind", 3, "output_kind must be one of CUMULATIVE (0), DELTA (1), FINAL_ONLY (2)"),
    ("output_kind", -1, "output_kind must be one of"),
    ("output_kind", None, "output_kind must be one of"),
    ("output_kind", True, "output_kind must be one of"),
    ("output_kind", "DELTA", "output_kind must be one of"),
    ("output_kind", 2**63, "output_kind must be one of"),
    ("stream_interval", 0, "stream_interval must be at least 1, got 0."),
    ("stream_interval", 1.5, "stream_interval must be an integer, got float."),
    ("stream_interval", True, "stream_interval must be an integer, got bool."),
    ("structured_outputs", "json", "structured_outputs must be a StructuredOutputsParams or a"),
    ("structured_outputs", {"jsn": {}}, "structured_outputs has unknown fields ['jsn']"),
    ("repetition_detection", 5, "repetition_detection must be a RepetitionDetectionParams or a"),
    ("repetition_detection", {"size": 5}, "repetition_detection has unknown fields ['size']"),
    ("extra_args", [1], "extra_args must be a dict with strings as keys."),
    ("extra_args", {1: 2}, "extra_args must be a dict with strings as keys."),
    ("skip_reading_prefix_cache", 1, "skip_reading_prefix_cache must be a bool or None, got int."),
    ("logits_processors", len, "logits_processors must be a list"),
    ("logits_processors", [5], "logits_processors must be callables, got int."),
    (
        "logits_processors",
        [lambda ids: None],
        "logits_processors must be callable as",
    ),
    (
        "logits_processors",
        [lambda a, b, c: c],
        "logits_processors must be callable as",
    ),
    ("logits_processors", [max] * 129, "logits_processors must be at most 128, got 129."),
]


@pytest.mark.parametrize(("name", "value", "text"), REFUSED)
def test_refused_values(name, value, text):
    with pytest.raises(ValidationError) as caught:
        SamplingParams(**{name: value})
    assert str(caught.value).startswith(text)
    assert caught.value.parameter == name
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, OctavoError)


def test_the_parameter_and_its_value_are_behind_the_message():
    with pytest.raises(ValidationError) as caught:
        SamplingParams(top_p=3)
    assert str(caught.value) == "top_p must be in (0, 1], got 3.0. (parameter=top_p, value=3.0)"
    assert caught.value.value == 3.0


def test_defaults():
    params = SamplingParams()
    assert (params.n, params.temperature, params.top_p, params.top_k) == (1, 1.0, 1.0, 0)
    assert (params.min_p, params.seed, params.max_tokens, params.min_tokens) == (0.0, None, 16, 0)
    assert (params.stop, params.stop_token_ids) == ([], [])
    assert params.detokenize
    assert params.skip_special_tokens
    assert params.spaces_between_special_tokens
    assert not params.ignore_eos
    assert not params.include_stop_str_in_output
    assert params.sampling_type is SamplingType.RANDOM


def test_positional_order_is_vllms():
    params = SamplingParams(2, 0.0, 0.0, 1.0, 0.5, None, 0.9, 40, 0.1, 7, "x", [3], True, 99, 5)
    assert (params.n, params.temperature, params.top_p, params.top_k) == (2, 0.5, 0.9, 40)
    assert (params.min_p, params.seed, params.stop, params.stop_token_ids) == (0.1, 7, ["x"], [3])
    assert (params.ignore_eos, params.max_tokens, params.min_tokens) == (True, 99, 5)


@pytest.mark.parametrize("value", [1e-9, 0.001, 0.0099])
def test_small_temperatures_are_raised(value):
    with pytest.warns(UserWarning, match="raised to 0.01"):
        params = SamplingParams(temperature=value)
    assert params.temperature == 0.01
    assert params.sampling_type is SamplingType.RANDOM


def test_greedy_resets_the_filters():
    params = SamplingParams(temperature=0, top_p=0.5, top_k=10, min_p=0.2, seed=1)
    assert (params.top_p, params.top_k, params.min_p) == (1.0, 0, 0.0)
    assert params.greedy
    assert params.sampling_type is SamplingType.GREEDY
    with pytest.raises(ValidationError, match="n must be 1 when using greedy sampling, got 2"):
        SamplingParams(n=2, temperature=0)


def test_boundary_values_are_taken():
    SamplingParams(n=16384, temperature=2, top_p=1e-9, top_k=10**12, min_p=1, max_tokens=10**12)
    SamplingParams(presence_penalty=-2, frequency_penalty=2, repetition_penalty=1e-308)
    SamplingParams(logit_bias=dict.fromkeys(range(1024), 1), logprob_token_ids=range(128))
    SamplingParams(allowed_token_ids=range(1024))
    assert SamplingParams(top_k=-1).top_k == 0
    assert SamplingParams(max_tokens=None).max_tokens is None
    assert SamplingParams(min_tokens=16).min_tokens == 16
    assert SamplingParams(max_tokens=None, min_tokens=10**9).min_tokens == 10**9


def test_seeds():
    assert SamplingParams(seed=-1).seed is None
    assert SamplingParams(seed=0).seed == 0
    assert SamplingParams(seed=0).sampling_type is SamplingType.RANDOM_SEED
    assert SamplingParams(seed=-5).to_core().seed == 2**64 - 5
    assert SamplingParams(seed=2**64 - 1).to_core().seed == 2**64 - 1


def test_stops_are_normalised():
    assert SamplingParams(stop="a").stop == ["a"]
    assert SamplingParams(stop=("a", "b")).stop == ["a", "b"]
    assert SamplingParams(stop_token_ids=[5, 3, 5, np.int64(3)]).stop_token_ids == [5, 3]
    assert SamplingParams(stop_token_ids=[5, 3]).all_stop_token_ids == {3, 5}
    with pytest.raises(ValidationError, match="only supported when detokenize is True"):
        SamplingParams(stop="a", detokenize=False)


def test_numpy_numbers_are_numbers():
    params = SamplingParams(n=np.int32(2), temperature=np.float32(0.5), top_k=np.int64(5))
    assert type(params.n) is int
    assert type(params.temperature) is float
    assert type(params.to_core().top_k) is int


LATER = {
    "watermarking": True,
    "prompt_logprob_token_ids": [[1]],
    "prompt_logprob_start": 2,
    "thinking_token_budget": 4,
    "routed_experts_prompt_start": 1,
    "trace_decode_token_ids": [1],
}


@pytest.mark.parametrize("name", LATER)
def test_fields_that_come_later_are_refused_by_name(name):
    with pytest.raises(NotSupportedError, match=f"{name}=.* is not supported") as caught:
        SamplingParams(**{name: LATER[name]})
    assert isinstance(caught.value, NotImplementedError)


def test_their_neutral_values_are_taken():
    SamplingParams(logit_bias={}, bad_words=[], extra_args={}, logprobs=None, output_kind=0)


def test_unknown_names_are_type_errors():
    for name in ("best_off", "length_penalty", "early_stopping"):
        with pytest.raises(TypeError):
            SamplingParams(**{name: 2})


def test_old_spellings_that_ask_for_nothing_are_taken_with_a_warning():
    for name, value in (("best_of", 3), ("use_beam_search", False)):
        with pytest.warns(DeprecationWarning, match=name) as caught:
            params = SamplingParams(n=3, **{name: value})
        assert caught[0].filename == __file__
        assert params == SamplingParams(n=3)
        assert params.clone() == params
        assert name not in repr(params)
    for name in ("best_of", "truncate_prompt_tokens", "guided_decoding"):
        assert SamplingParams.from_optional(**{name: None}) == SamplingParams()
    assert SamplingParams(thinking_token_budget=-1).thinking_token_budget == -1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_spellings_that_ask_for_something_are_refused():
    with pytest.raises(NotSupportedError, match="best_of=5 is not supported"):
        SamplingParams(n=3, best_of=5)
    with pytest.raises(NotSupportedError, match=r"use_beam_search=True is .*; see LLM.beam_search"):
        SamplingParams(use_beam_search=True)
    text = r"truncate_prompt_tokens=9 is not .* tokenization_kwargs=\{'truncate_prompt_tokens': 9\}"
    with pytest.raises(NotSupportedError, match=text):
        SamplingParams(truncate_prompt_tokens=9)


def test_from_optional_clone_equality_and_repr():
    params = SamplingParams.from_optional(n=2, temperature=None, stop=None, max_tokens=None)
    assert params == SamplingParams(n=2, max_tokens=None)
    other = params.clone()
    other.stop.append("x")
    assert params.stop == []
    assert other != params
    assert repr(params).startswith(
        "SamplingParams(n=2, presence_penalty=0.0, frequency_penalty=0.0, repetition_penalty=1.0, "
        "temperature=1.0, top_p=1.0, top_k=0"
    )
    shown = repr(SamplingParams(structured_outputs={"regex": "a+"}))
    assert "structured_outputs=StructuredOutputsParams(json=None, regex='a+'" in shown
    for name in ("watermarking", "skip_clone", "guided_decoding", "prompt_logprob_start"):
        assert name not in shown


def test_conversion_for_the_engine():
    params = SamplingParams(
        n=2, temperature=0.5, top_p=0.9, top_k=7, min_p=0.1, seed=3, max_tokens=10**12,
        min_tokens=2, ignore_eos=True, stop_token_ids=[4],
    )  # fmt: skip
    core = params.to_core([8, 9])
    assert (core.n, core.top_k, core.seed, core.min_tokens) == (2, 7, 3, 2)
    assert core.max_tokens == 2**31 - 1
    assert core.ignore_eos
    assert core.stop_token_ids == [4]
    assert core.extra_eos_token_ids == [8, 9]
    assert SamplingParams(max_tokens=None).to_core().max_tokens is None


def test_out_of_vocabulary_stop_ids():
    params = SamplingParams(stop_token_ids=[3, 10, -1])
    with pytest.raises(ValidationError) as caught:
        params.check_vocabulary(10)
    text = "token_id(s) [10, -1] in stop_token_ids contain out-of-vocab token ids."
    assert str(caught.value).startswith(text)
    SamplingParams(stop_token_ids=[9]).check_vocabulary(10)


def test_logprobs_are_normalised():
    assert [SamplingParams(logprobs=x).logprobs for x in (None, -1, 0, 5, True, False)] == [
        None, -1, 0, 5, 1, None,
    ]  # fmt: skip
    assert type(SamplingParams(logprobs=np.int64(3)).logprobs) is int
    assert [SamplingParams(logprobs=x).wants_logprobs for x in (None, 0)] == [False, True]
    params = SamplingParams(logprob_token_ids=[7, 3, 7])
    assert params.logprob_token_ids == [7, 3]
    assert params.wants_logprobs
    assert SamplingParams(logprob_token_ids=[]).logprob_token_ids is None


def test_logprobs_agree_with_their_token_ids():
    assert SamplingParams(logprobs=2, logprob_token_ids=[4, 5]).to_core().logprobs is None
    for logprobs in (-1, 0, 3):
        with pytest.raises(ValidationError, match="expected 2, got"):
            SamplingParams(logprobs=logprobs, logprob_token_ids=[4, 5])


def test_token_rules_are_normalised():
    params = SamplingParams(logit_bias={np.int64(3): 5}, allowed_token_ids=(4, 4, np.int32(2)))
    assert params.logit_bias == {3: 5.0}
    assert params.allowed_token_ids == [4, 2]
    assert SamplingParams(logit_bias={}).logit_bias is None
    assert SamplingParams().bad_words == []
    assert SamplingParams(bad_words=("a", "b")).bad_words == ["a", "b"]


def test_from_optional_casts_and_clamps_biases():
    given = {"5": 1.5, 6: -1000, "7": math.inf}
    assert SamplingParams.from_optional(logit_bias=given).logit_bias == {5: 1.5, 6: -100, 7: 100}
    assert SamplingParams(logit_bias={6: -1000}).logit_bias == {6: -1000}
    for wrong in ({"x": 1}, {None: 1}, {5: "x"}, {5: NAN}, [5]):
        with pytest.raises(ValidationError, match="logit_bias must"):
            SamplingParams.from_optional(logit_bias=wrong)


def test_rules_reach_the_engine():
    core = SamplingParams(
        presence_penalty=0.5, frequency_penalty=-1, repetition_penalty=1.25, logit_bias={3: 2},
        allowed_token_ids=[3, 4], bad_words=["x"], logprobs=-1,
    ).to_core((), [[5, 6]])  # fmt: skip
    penalties = (core.presence_penalty, core.frequency_penalty, core.repetition_penalty)
    assert penalties == (0.5, -1.0, 1.25)
    assert dict(core.logit_bias) == {3: 2.0}
    assert list(core.allowed_token_ids) == [3, 4]
    assert list(core.bad_words) == [[5, 6]]
    assert core.logprobs == -1


def test_values_stay_within_the_engines_floats():
    core = SamplingParams(repetition_penalty=1e308, logit_bias={1: 1e308, 2: -1e308}).to_core()
    assert core.repetition_penalty == pytest.approx(1e30)  # a float32
    assert dict(core.logit_bias) == pytest.approx({1: 1e30, 2: -1e30})
    assert SamplingParams(repetition_penalty=5e-324).to_core().repetition_penalty > 0


@pytest.mark.parametrize("name", ["logit_bias", "logprob_token_ids"])
def test_out_of_vocabulary_ids(name):
    for outside in (10, -1):
        given = {outside: 1.0} if name == "logit_bias" else [outside]
        with pytest.raises(ValidationError) as caught:
            SamplingParams(**{name: given}).check_vocabulary(10)
        assert str(caught.value).startswith(
            f"token_id(s) [{outside}] in {name} contain out-of-vocab token ids. "
            "Vocabulary size: 10 "
        )
    SamplingParams(**{name: {9: 1.0} if name == "logit_bias" else [9]}).check_vocabulary(10)


def test_allowed_ids_out_of_vocabulary():
    with pytest.raises(ValidationError, match="allowed_token_ids contains out-of-vocab token id!"):
        SamplingParams(allowed_token_ids=[3, 10]).check_vocabulary(10)
    SamplingParams(allowed_token_ids=[0, 9]).check_vocabulary(10)


def test_too_many_logprobs():
    text = "Requested sample logprobs of 21, which is greater than max allowed: 20"
    with pytest.raises(ValidationError, match=text):
        SamplingParams(logprobs=21).check_max_logprobs(20, 1000)
    with pytest.raises(ValidationError, match="logprobs of 1000, which is greater than max"):
        SamplingParams(logprobs=-1).check_max_logprobs(20, 1000)
    with pytest.raises(ValidationError, match=r"logprobs of 1001, .* max allowed: 1000"):
        SamplingParams(logprobs=1001).check_max_logprobs(-1, 1000)
    SamplingParams(logprobs=20).check_max_logprobs(20, 1000)
    SamplingParams(logprobs=-1).check_max_logprobs(-1, 1000)
    SamplingParams(logprobs=-1).check_max_logprobs(1000, 1000)
    SamplingParams(logprob_token_ids=range(100)).check_max_logprobs(20, 1000)


def test_output_kinds():
    assert SamplingParams().output_kind is RequestOutputKind.CUMULATIVE
    assert [kind.value for kind in RequestOutputKind] == [0, 1, 2]
    for kind in (RequestOutputKind.DELTA, 1, np.int64(1)):
        assert SamplingParams(output_kind=kind).output_kind is RequestOutputKind.DELTA
    assert SamplingParams(output_kind=2).output_kind is RequestOutputKind.FINAL_ONLY
    assert SamplingParams(stream_interval=np.int32(3)).stream_interval == 3


def test_repetition_detection():
    given = {"max_pattern_size": 8, "min_pattern_size": 2, "min_count": 3}
    params = SamplingParams(repetition_detection=given)
    assert params.repetition_detection == RepetitionDetectionParams(8, 2, 3)
    assert params.to_core().repetition_detection == (8, 2, 3)
    assert SamplingParams().to_core().repetition_detection == (0, 0, 0)
    huge = RepetitionDetectionParams(2**63, 1, 2**40)
    core = SamplingParams(repetition_detection=huge).to_core()
    assert core.repetition_detection == (2**31 - 1, 1, 2**31 - 1)
    assert RepetitionDetectionParams(min_count=1).max_pattern_size == 0  # off


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((-1, 0, 0), "max_pattern_size must be at least 0, got -1."),
        ((4, -1, 2), "min_pattern_size must be at least 0, got -1."),
        ((4, 1, -1), "min_count must be at least 0, got -1."),
        ((4, 5, 2), "min_pattern_size must be at most max_pattern_size=4, got 5."),
        ((4, 1, 1), "min_count must be at least 2 to detect repetitive patterns, got 1."),
        ((1.0, 0, 0), "max_pattern_size must be an integer, got float."),
        ((True, 0, 0), "max_pattern_size must be an integer, got bool."),
        ((4, 1, None), "min_count must be an integer, got NoneType."),
    ],
)
def test_repetition_detection_out_of_range(fields, text):
    with pytest.raises(ValidationError) as caught:
        RepetitionDetectionParams(*fields)
    assert str(caught.value).startswith(f"repetition_detection.{text}")


def test_prefix_cache_and_structure_reach_the_engine():
    core = SamplingParams(skip_reading_prefix_cache=True, structured_outputs={"regex": "a"})
    assert core.to_core().skip_reading_prefix_cache is True
    assert core.to_core().structured_outputs.kind == "regex"
    plain = SamplingParams().to_core()
    assert plain.skip_reading_prefix_cache is False
    assert plain.structured_outputs is None
    assert list(plain.logits_processors) == []


def run_processor(processor):
    """What it makes of four logits of 0, with the ids 1 and 2 so far."""
    (run,) = SamplingParams(logits_processors=[processor]).to_core().logits_processors
    logits = np.zeros(4, np.float32)
    assert run(np.array([1, 2], np.int32), logits) is None
    return logits.tolist()


def test_logits_processors_change_logits_or_return_them():
    def change(token_ids, logits):
        logits[token_ids] = -9

    def change_and_return(token_ids, logits):
        change(token_ids, logits)
        return logits

    assert run_processor(change) == [0, -9, -9, 0]
    assert run_processor(change_and_return) == [0, -9, -9, 0]
    assert run_processor(lambda ids, logits: logits + len(ids)) == [2, 2, 2, 2]
    assert run_processor(lambda ids, logits: logits.astype(np.float64) - 0.5) == [-0.5] * 4


@pytest.mark.parametrize("result", [3.0, np.zeros(3), [0.0] * 4, "x"])
def test_logits_processors_that_return_something_else(result):
    with pytest.raises(ValidationError, match="or return an array of shape"):
        run_processor(lambda ids, logits: result)


def test_copies_share_logits_processors():
    class Stateful:
        def __call__(self, token_ids, logits):
            pass

        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    processor = Stateful()
    params = SamplingParams(
        logits_processors=(processor,), stop=["a"], extra_args={"a": [1]},
        structured_outputs={"choice": ["a", "b"]},
    )  # fmt: skip
    for other in (params.clone(), copy.deepcopy(params), copy.deepcopy([params])[0]):
        assert other == params
        assert other.logits_processors == [processor]
        assert other.logits_processors is not params.logits_processors
        other.extra_args["a"].append(2)
        other.structured_outputs.choice.append("c")
        assert params.extra_args == {"a": [1]}
        assert params.structured_outputs.choice == ["a", "b"]
    assert SamplingParams(logits_processors=[max]) == SamplingParams()
    shallow = SamplingParams(skip_clone=True, stop=["a"])
    assert shallow.clone().stop is shallow.stop
    assert SamplingParams(logits_processors=[]).logits_processors is None


def test_guided_decoding_is_structured_outputs():
    expected = StructuredOutputsParams(choice=["a", "b"])
    for given in (GuidedDecodingParams(choice=["a", "b"]), {"choice": ["a", "b"]}, expected):
        with pytest.warns(DeprecationWarning, match="now structured_outputs") as caught:
            params = SamplingParams(guided_decoding=given)
        assert caught[0].filename == __file__
        assert params.structured_outputs == expected
        assert type(params.structured_outputs) is StructuredOutputsParams
    with (
        pytest.warns(DeprecationWarning, match="structured"),
        pytest.raises(ValidationError, match="cannot both be given"),
    ):
        SamplingParams(guided_decoding=expected, structured_outputs=expected)
    with (
        pytest.warns(DeprecationWarning, match="structured"),
        pytest.raises(ValidationError, match="guided_decoding must be"),
    ):
        SamplingParams(guided_decoding=5)


def test_replace_keeps_everything():
    params = SamplingParams(
        n=2, structured_outputs={"regex": "a"}, repetition_detection={"max_pattern_size": 0},
        logits_processors=[max], output_kind=1, seed=5,
    )  # fmt: skip
    other = dataclasses.replace(params, n=3)
    assert other.n == 3
    assert other.logits_processors == [max]
    assert dataclasses.replace(other, n=2) == params
    assert pickle.loads(pickle.dumps(params)) == params
