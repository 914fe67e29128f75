"""Beam search on the compiled engine: vLLM's rule and groups of beams against a plain model, all
sequences of a small language, and what else a request can ask for, in its beams."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_core
import numpy as np
import pytest
from beam_driver import (
    FREQUENT,
    bits_of,
    check_equal,
    language_of,
    make_llm,
    rules_of,
    search_all,
    search_one,
    tokens_of,
)
from beam_model import Rules, enumerate_all, search
from engine_driver import Tokens, make_engine, random_prompt
from octavo import BeamSearchParams, SamplingParams, ValidationError, _core

pytestmark = pytest.mark.skipif(fake_core.FAKED, reason="needs the compiled engine")

VOCAB = 320
END = FREQUENT["llama"]
LLAMA_ENDS = (END, 0)  # the model's, and the tokenizer's
PENALTIES = [0.0, 0.6, 1.0, 2.0, -1.0]


@pytest.fixture(scope="module", params=sorted(FREQUENT))
def model(request: Any, tiny_model: Callable[..., Path]) -> Any:
    """Of each family: its end token, an LLM, and an engine for its logits."""
    end = FREQUENT[request.param]
    path = tiny_model(request.param, overrides={"eos_token_id": end})
    with make_llm(path) as llm:
        yield end, llm, make_engine(path)


@pytest.fixture(scope="module")
def llama_path(tiny_model: Callable[..., Path]) -> Path:
    overrides = {"eos_token_id": FREQUENT["llama"]}
    return tiny_model("llama", overrides=overrides, tokenizer=True)


@pytest.fixture(scope="module")
def llama(llama_path: Path) -> Any:
    with make_llm(llama_path, skip_tokenizer_init=False) as llm:
        yield llm


@pytest.fixture(scope="module")
def logits_engine(llama_path: Path) -> _core.Engine:
    return make_engine(llama_path)


def prompt(i: int) -> Tokens:
    return random_prompt(3 + 7 * i, VOCAB, seed=60 + i)


# The rules.


@pytest.mark.parametrize("width", [2, 4, 8])
def test_vllms_rule(model: Any, width: int) -> None:
    end, llm, engine = model
    ended = by_length = ties = 0
    for i, penalty in enumerate(PENALTIES):
        params = BeamSearchParams(width, 10, length_penalty=penalty)
        beams = search_one(llm, prompt(i), params)
        expected = search(language_of(engine, prompt(i)), rules_of(params, end))
        ties += check_equal(beams, expected, params)
        ended += sum(found.ended for found in expected)
        by_length += sum(not found.ended for found in expected)
    assert ended
    assert by_length
    assert ties <= 1


def test_vllms_rule_gives_other_beams_than_transformers(model: Any) -> None:
    """Else the tests above would show nothing."""
    end, _, engine = model
    found = set()
    for rule in (None, True, False, "never"):
        rules = Rules(4, 10, 1.0, rule, frozenset([end]))
        found.add(str([search(language_of(engine, prompt(i)), rules) for i in range(3)]))
    assert len(found) > 1


def test_logprobs_are_the_candidates(model: Any) -> None:
    _, llm, engine = model
    next_logprobs = language_of(engine, prompt(1))
    for beam in search_one(llm, prompt(1), BeamSearchParams(4, 6)):
        total = 0.0
        for i, row in enumerate(beam.logprobs):
            expected = next_logprobs(beam.token_ids[:i])
            best = np.argsort(-expected, kind="stable")[:8]
            assert set(row) == set(best.tolist())
            for token, entry in row.items():
                assert entry.logprob == pytest.approx(expected[token], abs=1e-4)
                assert best[entry.rank - 1] == token
            total += row[beam.token_ids[i]].logprob
        assert beam.cumulative_logprob == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("rule", [None, "never"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_all_sequences_of_six_tokens(
    tiny_model: Callable[..., Path], rule: str | None, penalty: float
) -> None:
    """A search as wide as the language finds its best: at most 5^3 beginnings are alive."""
    path = tiny_model("llama", overrides={"vocab_size": 6, "eos_token_id": 1})
    params = BeamSearchParams(6**3, 4, length_penalty=penalty, early_stopping=rule)
    engine = make_engine(path)
    with make_llm(path, num_gpu_blocks_override=700) as llm:
        for start in ([0], [2, 3, 4], [5, 1, 5, 1]):
            expected = enumerate_all(language_of(engine, start), rules_of(params, 1))
            assert len(expected) == 1 + 5 + 25 + 125 + 625
            beams = search_one(llm, start, params)
            assert len(beams) == 6**3
            assert check_equal(beams, expected[: 6**3], params) <= 4


@pytest.mark.parametrize("rule", [None, True, False, "never"])
@pytest.mark.parametrize(("width", "groups"), [(4, 2), (6, 3), (4, 4), (8, 2)])
def test_groups(model: Any, width: int, groups: int, rule: bool | str) -> None:
    end, llm, engine = model
    for i, penalty in enumerate((0.3, 1.5, 20.0)):
        params = BeamSearchParams(
            width, 8, early_stopping=rule, num_beam_groups=groups, diversity_penalty=penalty
        )
        beams = search_one(llm, prompt(i), params)
        expected = search(language_of(engine, prompt(i)), rules_of(params, end))
        check_equal(beams, expected, params)


def test_a_high_diversity_penalty_makes_groups_differ(model: Any) -> None:
    _, llm, _ = model
    plain = BeamSearchParams(4, 8, ignore_eos=True)
    diverse = BeamSearchParams(
        4, 8, ignore_eos=True, num_beam_groups=4, diversity_penalty=50.0, early_stopping="never"
    )
    for position in range(8):
        chosen = [beam.token_ids[position] for beam in search_one(llm, prompt(2), diverse)]
        assert len(set(chosen)) == 4
    first = [beam.token_ids[0] for beam in search_one(llm, prompt(2), plain)]
    assert len(set(first)) < 4


def test_num_return_sequences(model: Any) -> None:
    _, llm, _ = model
    every = search_one(llm, prompt(1), BeamSearchParams(8, 6))
    for count in (1, 3, 8):
        some = search_one(llm, prompt(1), BeamSearchParams(8, 6, num_return_sequences=count))
        assert some == every[:count]


def test_max_logprobs_is_no_limit(llama_path: Path, logits_engine: _core.Engine) -> None:
    params = BeamSearchParams(16, 5)
    with make_llm(llama_path, max_logprobs=0) as llm:
        beams = search_one(llm, prompt(1), params)
    rules = rules_of(params, FREQUENT["llama"])
    check_equal(beams, search(language_of(logits_engine, prompt(1)), rules), params)
    assert all(len(row) == 32 for row in beams[0].logprobs)


def test_the_context_bounds_a_search(llama_path: Path) -> None:
    with make_llm(llama_path, max_model_len=32) as llm:
        beams = search_one(llm, list(range(1, 29)), BeamSearchParams(4, 100, ignore_eos=True))
    assert [len(beam.token_ids) for beam in beams] == [4] * 4
    assert {beam.finish_reason for beam in beams} == {"length"}


# What may come.

ALLOWED = [5, 6, 7, 8, 9, END]


def biased(logits: np.ndarray, tokens: Tokens) -> None:
    for token, bias in {5: 3.0, 6: -4.0, END: 2.0}.items():
        logits[token] += bias


def allowed(logits: np.ndarray, tokens: Tokens) -> None:
    kept = logits[ALLOWED]
    logits[:] = -np.inf
    logits[ALLOWED] = kept


def no_end_before_4(logits: np.ndarray, tokens: Tokens) -> None:
    if len(tokens) < 4:
        logits[list(LLAMA_ENDS)] = -np.inf


def penalised(logits: np.ndarray, tokens: Tokens) -> None:
    counts = Counter(tokens)
    for token in {*tokens, *prompt(1)}:
        logits[token] = logits[token] / 1.4 if logits[token] > 0 else logits[token] * 1.4
    for token, count in counts.items():
        logits[token] -= 0.4 * count + 0.7


EDITS: dict[str, Any] = {
    "logit_bias": ({"logit_bias": {5: 3.0, 6: -4.0, END: 2.0}}, biased),
    "allowed_token_ids": ({"allowed_token_ids": ALLOWED}, allowed),
    "min_tokens": ({"min_tokens": 4}, no_end_before_4),
    "penalties": (
        {"repetition_penalty": 1.4, "frequency_penalty": 0.4, "presence_penalty": 0.7},
        penalised,
    ),
}


@pytest.mark.parametrize("rule", [None, False])
@pytest.mark.parametrize("edit", sorted(EDITS))
def test_edits_of_the_logits(
    llama: Any, logits_engine: _core.Engine, edit: str, rule: bool | None
) -> None:
    fields, function = EDITS[edit]
    params = BeamSearchParams(4, 8, early_stopping=rule, **fields)
    beams = search_one(llama, prompt(1), params)
    rules = rules_of(params, *LLAMA_ENDS)
    check_equal(beams, search(language_of(logits_engine, prompt(1), function), rules), params)
    plain = search(language_of(logits_engine, prompt(1)), rules)
    assert tokens_of(beams) != [found.tokens for found in plain], "the field has no effect here"


def test_bad_words(llama: Any) -> None:
    tokenizer = llama.get_tokenizer()

    def ids(**fields: Any) -> list[int]:
        params = BeamSearchParams(8, 6, ignore_eos=True, **fields)
        beams = search_one(llama, prompt(1), params)
        return list(itertools.chain.from_iterable(tokens_of(beams)))

    # A token that the beams have, and that a text spells by itself.
    banned = next(i for i in ids() if tokenizer.encode(tokenizer.decode(i)) == [i])
    assert banned not in ids(bad_words=[tokenizer.decode(banned)])


@pytest.mark.parametrize("width", [1, 4])
def test_structured_outputs(llama: Any, width: int) -> None:
    params = BeamSearchParams(width, 12, structured_outputs={"regex": "(ab|cd){2,4}x?"})
    beams = search_one(llama, prompt(1), params)
    assert len(beams) == width
    assert len({beam.text for beam in beams}) > 1 or width == 1
    for beam in beams:
        assert beam.finish_reason == "stop"
        assert re.fullmatch("(ab|cd){2,4}x?", beam.text), beam.text
    total = [params.score(beam.cumulative_logprob, len(beam.token_ids)) for beam in beams]
    assert total == sorted(total, reverse=True)


def test_a_structure_with_fewer_texts_than_beams(llama: Any) -> None:
    params = BeamSearchParams(8, 12, structured_outputs={"choice": ["yes", "no"]})
    beams = search_one(llama, prompt(1), params)
    assert {beam.text for beam in beams} == {"yes", "no"}
    assert {beam.finish_reason for beam in beams} == {"stop"}


def test_a_structure_that_is_cut_by_the_length(llama: Any) -> None:
    params = BeamSearchParams(3, 4, structured_outputs={"regex": "[0-9]{20}"})
    for beam in search_one(llama, prompt(1), params):
        assert re.fullmatch("[0-9]{1,19}", beam.text)
        assert beam.finish_reason == "length"


def stop_texts(llm: Any) -> list[str]:
    """A character that beams have, and two that a token ends and the next begins."""
    tokenizer = llm.get_tokenizer()
    beams = search_one(llm, prompt(1), BeamSearchParams(8, 10, ignore_eos=True))
    texts = [[tokenizer.decode(i) for i in beam.token_ids] for beam in beams]
    pairs = [a[-1] + b[0] for row in texts for a, b in itertools.pairwise(row[2:])]
    plain = [pair for pair in pairs if pair.isascii() and pair.isprintable()]
    return [plain[0][0], plain[0]]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("rule", [None, True, "never"])
def test_stop_strings(
    llama: Any, logits_engine: _core.Engine, which: int, rule: bool | str | None
) -> None:
    stop, tokenizer = stop_texts(llama)[which], llama.get_tokenizer()
    params = BeamSearchParams(8, 10, early_stopping=rule, stop=["never said", stop])
    rules = rules_of(params, *LLAMA_ENDS)

    def is_end(tokens: Tokens) -> bool:
        return stop in tokenizer.decode(tokens) and stop not in tokenizer.decode(tokens[:-1])

    rules.is_end = is_end
    beams = search_one(llama, prompt(1), params)
    check_equal(beams, search(language_of(logits_engine, prompt(1)), rules), params)
    stopped = [beam for beam in beams if beam.stop_reason == stop]
    assert stopped
    for beam in stopped:
        whole = tokenizer.decode(beam.token_ids)
        assert beam.text == whole[: whole.index(stop)]
    later = BeamSearchParams(8, 10, stop=stop, min_tokens=6)
    assert all(len(b.token_ids) > 6 for b in search_one(llama, prompt(1), later) if b.stop_reason)


# Beside others.


def mixed(i: int) -> BeamSearchParams:
    options: list[dict[str, Any]] = [
        {},
        {"early_stopping": True, "presence_penalty": 0.5},
        {"early_stopping": "never", "length_penalty": 2.0, "stop": ["e", " t"]},
        {"structured_outputs": {"regex": "[a-z]{3,9}"}},
        {"num_beam_groups": 2, "diversity_penalty": 0.7, "early_stopping": False},
        {"logit_bias": {5: 2.0}, "min_tokens": 3},
    ]
    return BeamSearchParams(2 + 2 * (i % 3), 6 + i, **options[i % len(options)])


def sampled(i: int) -> SamplingParams:
    fields: dict[str, Any] = [{"temperature": 0.0}, {"seed": i}, {"seed": i, "top_p": 0.8, "n": 2}][
        i % 3
    ]
    return SamplingParams(max_tokens=5 + i, logprobs=2, **fields)


def a_crowd() -> tuple[list[Tokens], list[Any]]:
    prompts = [prompt(i) for i in range(12)]
    return prompts, [mixed(i // 2) if i % 2 else sampled(i // 2) for i in range(12)]


@pytest.fixture(scope="module")
def alone(llama_path: Path) -> list[Any]:
    """Each request of the crowd in an engine of its own company, without a prefix cache."""
    with make_llm(llama_path, skip_tokenizer_init=False, enable_prefix_caching=False) as llm:
        pairs = zip(*a_crowd(), strict=True)
        return [bits_of(search_all(llm, [prompt], params)[0]) for prompt, params in pairs]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"enable_prefix_caching": False, "num_threads": 1},
        {"max_num_batched_tokens": 32},
        {"max_num_batched_tokens": 7},
        {"max_num_seqs": 6},
        {"max_num_batched_tokens": 6, "max_num_seqs": 8},
    ],
    ids=str,
)
def test_a_crowd_changes_no_bit(
    llama_path: Path, alone: list[Any], options: dict[str, Any]
) -> None:
    with make_llm(llama_path, skip_tokenizer_init=False, **options) as llm:
        for _ in range(2):  # the second time prefixes are cached
            assert [bits_of(output) for output in search_all(llm, *a_crowd())] == alone


def test_streamed_beams(llama: Any) -> None:
    """What a step shows is the best live beam, and the end is the result. The outputs of steps that
    nobody has waited for are skipped."""
    params = BeamSearchParams(4, 8, ignore_eos=True, length_penalty=0.0)
    *before, last = llama.stream([prompt(1)], params)
    lengths = [len(output.outputs[0].token_ids) for output in before]
    assert lengths == sorted(set(lengths))
    assert set(lengths) <= set(range(1, 8))
    assert last.outputs == search_one(llama, prompt(1), params)
    for output in before:
        (best,) = output.outputs
        length = len(best.token_ids)
        (reference, *_) = search_one(
            llama, prompt(1), BeamSearchParams(4, length, ignore_eos=True, length_penalty=0.0)
        )
        assert best.token_ids == reference.token_ids
        assert best.cumulative_logprob == reference.cumulative_logprob
        assert reference.text.startswith(best.text)


# What is refused, before it can reach a step.


@pytest.mark.parametrize(
    ("tokens", "params", "text"),
    [
        ([1], BeamSearchParams(9, 4), "beam_width: 9.*max_num_seqs"),
        ([1] * 40, BeamSearchParams(8, 40), "beam_width"),
        ([1], BeamSearchParams(2, 4, length_penalty=1e300), "length_penalty"),
        ([1], BeamSearchParams(2, 4, stop_token_ids=[VOCAB]), "stop_token_ids"),
        ([1], BeamSearchParams(2, 4, structured_outputs={"regex": "(a"}), "regex"),
        ([1] * 64, BeamSearchParams(2, 4), "maximum model length"),
        ([], BeamSearchParams(2, 4), "cannot be empty"),
    ],
)
def test_what_is_refused(llama_path: Path, tokens: Tokens, params: Any, text: str) -> None:
    options = {"max_num_seqs": 8, "max_model_len": 64, "num_gpu_blocks_override": 24}
    with make_llm(llama_path, skip_tokenizer_init=False, **options) as llm:
        fine = BeamSearchParams(2, 4)
        before = tokens_of(search_one(llm, prompt(1), fine))
        with pytest.raises(ValidationError, match=text):
            search_all(llm, [prompt(1), tokens], [fine, params])
        assert tokens_of(search_one(llm, prompt(1), fine)) == before
        assert llm._core.between_steps(lambda engine: engine.stats())["num_running"] == 0


BAD_FIELDS: list[tuple[str, Any]] = [
    ("beam_width", 0),
    ("beam_width", 16385),
    ("max_tokens", 0),
    ("length_penalty", float("nan")),
    ("num_return_sequences", -1),
    ("num_return_sequences", 5),
    ("num_groups", 0),
    ("num_groups", 3),
    ("diversity_penalty", -1.0),
    ("diversity_penalty", 1.0),
    ("stop", [""]),
    ("stop", ["x"]),  # without a vocabulary
    # Made in the test: pytest may keep these values for longer than the extension module lives.
    ("tokens", {"min_tokens": -1}),
]


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS, ids=str)
def test_the_engine_checks_by_itself(llama_path: Path, name: str, value: Any) -> None:
    engine = make_engine(llama_path)
    thread, queue = _core.EngineThread(engine), _core.OutputQueue()
    if name == "tokens":
        value = _core.SamplingParams(**value)
    with pytest.raises(ValidationError):
        thread.add_beam_search(
            [1, 2], _core.BeamSearchParams(**{"beam_width": 4, "max_tokens": 4, name: value}), queue
        )
    owned: set[int] = set()
    params = _core.BeamSearchParams(beam_width=4, max_tokens=4)
    request_id = thread.add_beam_search([1, 2], params, queue, owned=owned)
    assert owned == {request_id}
    output = queue.take()[-1]
    while not output.request_finished:
        output = queue.take()[-1]
    assert (output.request_id, output.sample_index, output.request_finished) == (
        request_id,
        0,
        True,
    )
    assert len(output.beams) == 4
    for beam in output.beams:
        assert beam.score == pytest.approx(beam.logprob / len(beam.token_ids))
        assert len(beam.logprobs) == len(beam.token_ids)
        assert (beam.stop_index, beam.stop_token_id) == (-1, None)
    thread.close()
