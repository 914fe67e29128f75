"""BeamSearchParams: vLLM's fields and defaults, and what is refused."""

import copy
import math
import pickle

import fake_core  # noqa: F401
import octavo
import pytest
from octavo import NotSupportedError, SamplingParams, ValidationError, _core
from octavo.sampling_params import BeamSearchParams, RequestOutputKind, StructuredOutputsParams

NAN, INF = math.nan, math.inf

# vLLM's, in its order; all may be given by position.
FIELDS = {
    "beam_width": 3,
    "max_tokens": 7,
    "ignore_eos": False,
    "temperature": 0.0,
    "length_penalty": 1.0,
    "include_stop_str_in_output": False,
    "structured_outputs": None,
    "skip_special_tokens": True,
    "watermarking": None,
    "allowed_token_ids": None,
}

REFUSED = [
    ("beam_width", 0, "beam_width must be at least 1, got 0."),
    ("beam_width", -1, "beam_width must be at least 1, got -1."),
    ("beam_width", 16385, "beam_width must be at most 16384, got 16385."),
    ("beam_width", 2.0, "beam_width must be an int, but is of type <class 'float'>"),
    ("beam_width", True, "beam_width must be an int, but is of type <class 'bool'>"),
    ("beam_width", None, "beam_width must be an int, but is of type <class 'NoneType'>"),
    ("max_tokens", 0, "max_tokens must be at least 1, got 0."),
    ("max_tokens", -5, "max_tokens must be at least 1, got -5."),
    ("max_tokens", None, "max_tokens must be an integer, got NoneType."),
    ("max_tokens", 1.5, "max_tokens must be an integer, got float."),
    ("ignore_eos", 1, "ignore_eos must be a bool"),
    ("temperature", -1, "temperature must be non-negative"),
    ("temperature", 2.5, "temperature must be in [0, 2]"),
    ("temperature", NAN, "temperature must be a finite number"),
    ("length_penalty", INF, "length_penalty must be a finite number"),
    ("length_penalty", NAN, "length_penalty must be a finite number"),
    ("length_penalty", "1", "length_penalty must be a number, got str."),
    ("length_penalty", 10**400, "length_penalty must be a number that a float can hold."),
    ("include_stop_str_in_output", 0, "include_stop_str_in_output must be a bool"),
    ("structured_outputs", "json", "structured_outputs must be a StructuredOutputsParams or a"),
    ("skip_special_tokens", None, "skip_special_tokens must be a bool"),
    ("allowed_token_ids", [], "allowed_token_ids is not None and empty!"),
    ("allowed_token_ids", [1.5], "allowed_token_ids must contain only integers"),
    ("early_stopping", 1, "early_stopping must be True, False, 'never' or None, got 1."),
    ("early_stopping", 0, "early_stopping must be True, False, 'never' or None, got 0."),
    ("early_stopping", "always", "early_stopping must be True, False, 'never' or None"),
    ("early_stopping", [], "early_stopping must be True, False, 'never' or None"),
    ("num_return_sequences", 0, "num_return_sequences must be in [1, beam_width=4], got 0."),
    ("num_return_sequences", 5, "num_return_sequences must be in [1, beam_width=4], got 5."),
    ("num_return_sequences", 1.0, "num_return_sequences must be an integer, got float."),
    ("stop", "", "stop cannot contain an empty string."),
    ("stop", [1], "stop must contain only strings"),
    ("stop_token_ids", ["1"], "stop_token_ids must contain only integers"),
    ("stop_token_ids", range(129), "stop_token_ids must have at most 128 ids, got 129."),
    ("min_tokens", -1, "min_tokens must be greater than or equal to 0, got -1."),
    ("min_tokens", 9, "min_tokens must be less than or equal to max_tokens=8, got 9."),
    ("presence_penalty", 2.5, "presence_penalty must be in [-2, 2], got 2.5."),
    ("frequency_penalty", NAN, "frequency_penalty must be in [-2, 2], got nan."),
    ("repetition_penalty", 0, "repetition_penalty must be greater than zero, got 0.0."),
    ("logit_bias", {"5": 1.0}, "logit_bias must have integers as keys"),
    ("logit_bias", {5: INF}, "logit_bias must be a finite number, got inf."),
    ("bad_words", "word", "bad_words must be a list, got str."),
    ("bad_words", [""], "bad_words cannot contain an empty string."),
    ("num_beam_groups", 0, "num_beam_groups must be a divisor of beam_width=4, got 0."),
    ("num_beam_groups", 3, "num_beam_groups must be a divisor of beam_width=4, got 3."),
    ("num_beam_groups", 8, "num_beam_groups must be a divisor of beam_width=4, got 8."),
    ("num_beam_groups", 2.0, "num_beam_groups must be an integer, got float."),
    ("diversity_penalty", 0.5, "diversity_penalty needs num_beam_groups above 1, got 0.5."),
    ("diversity_penalty", -0.5, "diversity_penalty must be at least 0, got -0.5."),
    ("diversity_penalty", NAN, "diversity_penalty must be a finite number"),
    ("logprobs", 5, "logprobs must be a bool, got int."),
    ("output_kind", RequestOutputKind.DELTA, "output_kind must be CUMULATIVE or FINAL_ONLY"),
    ("output_kind", 7, "output_kind must be one of"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED)
def test_bad_values(name, value, message):
    with pytest.raises(ValidationError) as caught:
        BeamSearchParams(**{"beam_width": 4, "max_tokens": 8, name: value})
    assert message in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert caught.value.parameter == name


def test_fields_are_those_of_vllm_in_their_order():
    params = BeamSearchParams(*FIELDS.values())
    assert {name: getattr(params, name) for name in FIELDS} == FIELDS
    assert params == BeamSearchParams(3, 7) == BeamSearchParams(beam_width=3, max_tokens=7)
    with pytest.raises(TypeError):
        BeamSearchParams(*FIELDS.values(), True)  # the rest is by keyword
    with pytest.raises(TypeError):
        BeamSearchParams(4)  # as in vLLM
    with pytest.raises(TypeError):
        BeamSearchParams(4, 8, top_k=5)


def test_names():
    assert octavo.BeamSearchParams is BeamSearchParams
    with pytest.raises(AttributeError, match="no attribute 'Beam'"):
        octavo.sampling_params.Beam  # noqa: B018


def test_values_are_normalised():
    params = BeamSearchParams(
        4,
        8,
        stop="end",
        stop_token_ids=[5, 5, 6],
        structured_outputs={"regex": "[ab]+"},
        length_penalty=2,
        output_kind=2,
    )
    assert params.stop == ["end"]
    assert params.stop_token_ids == [5, 6]
    assert params.structured_outputs == StructuredOutputsParams(regex="[ab]+")
    assert isinstance(params.length_penalty, float)
    assert params.output_kind is RequestOutputKind.FINAL_ONLY
    assert BeamSearchParams(4, 8).stop == []


def test_watermarking_is_refused_by_name():
    with pytest.raises(NotSupportedError, match="watermarking"):
        BeamSearchParams(4, 8, watermarking={"key": 1})


def test_copies_and_repr():
    params = BeamSearchParams(4, 8, stop=["x"], logit_bias={5: 1.0}, early_stopping="never")
    for other in (params.clone(), copy.copy(params), pickle.loads(pickle.dumps(params))):
        assert other == params
    clone = params.clone()
    clone.stop.append("y")
    assert params.stop == ["x"]
    assert params != clone
    assert params != SamplingParams()
    text = repr(params)
    assert text.startswith("BeamSearchParams(beam_width=4, max_tokens=8, ignore_eos=False")
    assert "early_stopping='never'" in text


@pytest.mark.parametrize(
    ("given", "rule"), [(None, "vllm"), (True, "true"), (False, "false"), ("never", "never")]
)
def test_the_engines_form(given, rule):
    params = BeamSearchParams(
        4,
        8,
        temperature=1.5,
        length_penalty=0.5,
        early_stopping=given,
        num_return_sequences=3,
        num_beam_groups=2,
        diversity_penalty=0.25,
        stop="end",
        min_tokens=2,
        presence_penalty=0.5,
        logit_bias={7: 1.0},
        allowed_token_ids=[7, 8],
        ignore_eos=True,
    )
    core = params.to_core(params.token_rules().to_core((11,)))
    assert isinstance(core, _core.BeamSearchParams)
    assert (core.beam_width, core.max_tokens, core.num_return_sequences) == (4, 8, 3)
    assert (core.length_penalty, core.early_stopping) == (0.5, rule)
    assert (core.num_groups, core.diversity_penalty) == (2, 0.25)
    assert list(core.stop) == ["end"]
    assert core.stream is False
    tokens = core.tokens
    assert tokens.temperature == 0.0
    assert (tokens.min_tokens, tokens.presence_penalty, tokens.ignore_eos) == (2, 0.5, True)
    assert tokens.logit_bias == {7: 1.0}
    assert list(tokens.allowed_token_ids) == [7, 8]
    assert list(tokens.extra_eos_token_ids) == [11]


def test_the_score_is_vllms():
    params = BeamSearchParams(4, 8, length_penalty=0.6)
    assert params.score(-6.0, 5) == pytest.approx(-6.0 / 5**0.6)
    assert params.score(-6.0, 0) == -6.0
    assert BeamSearchParams(4, 8, length_penalty=-1).score(-6.0, 5) == pytest.approx(-30.0)
    for penalty in (1e30, -1e30):  # no overflow
        assert math.isfinite(BeamSearchParams(4, 8, length_penalty=penalty).score(-6.0, 500))


def test_the_beams_of_a_result():
    assert BeamSearchParams(4, 8).n == 4
    assert BeamSearchParams(4, 8, num_return_sequences=2).n == 2
