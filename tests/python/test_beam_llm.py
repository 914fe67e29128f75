"""Beam search through LLM and AsyncLLM, over an engine that searches a written-down language: the
forms of the results, texts, ends, streams, errors."""

import asyncio
import dataclasses
import itertools

import fake_core
import numpy as np
import pytest
from beam_model import Rules, log_softmax, search
from fake_core import FakeEngine
from fake_llm import EOS, EOT, engine_saying, maker, save_model, small_backend
from octavo import (
    AsyncLLM,
    BeamSearchOutput,
    BeamSearchParams,
    BeamSearchSequence,
    Logprob,
    NotSupportedError,
    SamplingParams,
    ValidationError,
)
from octavo.sampling_params import RequestOutputKind

WORDS = (" the", " fox", " dog", "s", ",", ".", " in", "é", " 東", " wör", "ld")


@pytest.fixture(scope="module")
def backend():
    return small_backend()


@pytest.fixture(scope="module")
def alphabet(backend):
    """The ids that the language speaks: of the words' tokens, and its ends."""
    ids = {i for word in WORDS for i in backend.encode(word, add_special_tokens=False).ids}
    return sorted(ids)


@pytest.fixture(scope="module")
def language(alphabet):
    def logprobs(tokens):
        draw = np.random.default_rng([7, len(tokens), *tokens])
        row = np.full(1000, -np.inf)
        row[alphabet] = draw.normal(0, 2, len(alphabet))
        row[EOS] = draw.normal(2, 2)
        return log_softmax(row)

    return logprobs


@pytest.fixture
def model(tmp_path, backend):
    return save_model(backend, tmp_path)


@pytest.fixture
def make(monkeypatch, model, backend, language):
    def make(engine=None, **options):
        engine = engine or engine_saying(backend, "Hello")
        engine.language = language
        return maker(monkeypatch, model, backend)(engine=engine, **options)

    return make


def rules(params, ends=(EOS,)):
    return Rules(
        width=params.beam_width,
        max_tokens=params.max_tokens,
        length_penalty=params.length_penalty,
        early_stopping=params.early_stopping,
        ends=frozenset(ends),
    )


PARAMS = BeamSearchParams(beam_width=4, max_tokens=7)


def test_beam_search(make, language, backend):
    llm = make()
    (output,) = llm.beam_search("The fox", PARAMS)
    prompt = backend.encode("The fox").ids
    expected = search(language, rules(PARAMS))
    assert isinstance(output, BeamSearchOutput)
    assert [f.name for f in dataclasses.fields(output)] == ["sequences"]
    assert len(output.sequences) == 4
    assert {found.ended for found in expected} == {True, False}
    for sequence, found in zip(output.sequences, expected, strict=True):
        assert isinstance(sequence, BeamSearchSequence)
        assert sequence.orig_prompt == {"prompt": "The fox", "prompt_token_ids": prompt}
        assert sequence.tokens == prompt + found.tokens
        assert sequence.text == backend.decode(prompt + found.tokens, skip_special_tokens=True)
        assert sequence.text.startswith("The fox")
        assert sequence.cum_logprob == pytest.approx(found.logprob)
        assert sequence.score == pytest.approx(found.score)
        assert sequence.finish_reason == ("stop" if found.ended else "length")
        assert sequence.stop_reason is None
        assert sequence.lora_request is None
        assert (found.tokens[-1] == EOS) == found.ended
    assert not llm.fake.live


def test_logprobs_of_the_candidates(make, language):
    (output,) = make().beam_search([[50, 51]], PARAMS)
    for sequence in output.sequences:
        assert isinstance(sequence.logprobs, list)
        generated = sequence.tokens[2:]
        total = 0.0
        for i, (token, entries) in enumerate(zip(generated, sequence.logprobs, strict=True)):
            assert next(iter(entries)) == token
            assert len(entries) == 2 * PARAMS.beam_width
            row = language(generated[:i])
            assert all(entries[t].logprob == pytest.approx(row[t]) for t in entries)
            assert isinstance(entries[token], Logprob)
            assert entries[token].rank == 1 + (row > row[token]).sum()
            total += entries[token].logprob
        assert sequence.cum_logprob == pytest.approx(total)


def test_positional_arguments_of_vllm(make):
    llm = make()
    outputs = llm.beam_search([{"prompt": "one"}, {"prompt_token_ids": [60]}], PARAMS, None, False)
    assert [o.sequences[0].orig_prompt["prompt_token_ids"] for o in outputs][1] == [60]
    assert "prompt" not in outputs[1].sequences[0].orig_prompt
    assert llm.beam_search(["one"], params=PARAMS, concurrency_limit=1, priority=[0]) == outputs[:1]


@pytest.mark.parametrize("prompt", ["The fox", {"prompt": "The fox"}, [60, 61]])
def test_one_prompt_by_itself(make, prompt):
    llm = make()
    assert llm.beam_search(prompt, PARAMS) == llm.beam_search([prompt], PARAMS)
    assert len(llm.beam_search(prompt, PARAMS)) == 1


def test_prompts_of_all_forms_in_order(make):
    prompts = ["a", [60, 61], {"prompt": "b"}, {"prompt_token_ids": [62]}, "c"]
    params = [BeamSearchParams(1 + i, 5) for i in range(5)]
    outputs = make().beam_search(prompts, params)
    assert [len(output.sequences) for output in outputs] == [1, 2, 3, 4, 5]
    with pytest.raises(ValidationError, match="lengths of prompts"):
        make().beam_search(prompts, params[:4])


def test_concurrency_limit(make):
    engine = FakeEngine()
    most = []
    engine.before_step = lambda engine: most.append(len(engine.live))
    llm = make(engine)
    outputs = llm.beam_search([[40 + i] for i in range(7)], PARAMS, concurrency_limit=2)
    assert max(most) == 2
    assert [o.sequences[0].tokens[0] for o in outputs] == list(range(40, 47))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([], PARAMS), ValueError, "You must pass at least one prompt"),
        ((["a"], SamplingParams()), TypeError, "must be BeamSearchParams, but got SamplingParams"),
        ((["a"], None), TypeError, "must be BeamSearchParams, but got NoneType"),
        ((["a"], [PARAMS, 5]), TypeError, "must be BeamSearchParams, but got int"),
        (([5.5], PARAMS), TypeError, "Prompt should be a string"),
        (([[]], PARAMS), ValidationError, "cannot be empty"),
        (([[1000]], PARAMS), ValidationError, "out of vocabulary"),
        ((["a"], PARAMS, "adapter"), NotSupportedError, "lora_request"),
        ((["a"], PARAMS, None, False, 0), ValidationError, "concurrency_limit must be at least 1"),
        ((["a"], PARAMS, None, False, "2"), ValidationError, "concurrency_limit must be an int"),
        ((["a"], PARAMS, None, False, None, [1, 2]), ValidationError, "prompts .1. and priority"),
        ((["a"], BeamSearchParams(2, 5, allowed_token_ids=[1000])), ValidationError, "vocab"),
        ((["a"], BeamSearchParams(2, 5, logit_bias={1000: 1})), ValidationError, "vocab"),
    ],
)
def test_what_is_refused(make, arguments, error, text):
    llm = make()
    with pytest.raises(error, match=text):
        llm.beam_search(*arguments)
    assert not llm.fake.live
    assert not llm._core.in_flight
    assert len(llm.beam_search(["a"], PARAMS)) == 1


# generate and its like.


def generate(llm, prompts, params=PARAMS, **options):
    return llm.generate(prompts, params, use_tqdm=False, **options)


def test_generate(make, language, backend):
    llm = make()
    (output,) = generate(llm, "The fox")
    assert output.prompt == "The fox"
    assert output.finished
    assert output.request_id == "0"
    for i, (beam, found) in enumerate(
        zip(output.outputs, search(language, rules(PARAMS)), strict=True)
    ):
        assert beam.index == i
        assert beam.token_ids == found.tokens
        ids = found.tokens[:-1] if found.ended else found.tokens
        assert beam.text == backend.decode(ids, skip_special_tokens=False)
        assert beam.cumulative_logprob == pytest.approx(found.logprob)
        assert len(beam.logprobs) == len(beam.token_ids)
        assert beam.finish_reason == ("stop" if found.ended else "length")
        assert beam.stop_reason is None
        assert beam.error is None
    assert output.metrics.num_generation_tokens == sum(len(b.token_ids) for b in output.outputs)


def test_options_of_the_results(make, language):
    llm = make()
    params = BeamSearchParams(4, 7, logprobs=False, num_return_sequences=2)
    (output,) = generate(llm, "The fox", params)
    expected = search(language, rules(PARAMS))[:2]
    assert [beam.token_ids for beam in output.outputs] == [found.tokens for found in expected]
    assert all(beam.logprobs is None for beam in output.outputs)
    assert output.outputs[0].cumulative_logprob == pytest.approx(expected[0].logprob)
    (sequences,) = [o.sequences for o in llm.beam_search("The fox", params)]
    assert [sequence.logprobs for sequence in sequences] == [[], []]


def test_mixed_with_sampling(make, language, backend):
    llm = make()
    params = [SamplingParams(max_tokens=20), PARAMS, SamplingParams(max_tokens=2)]
    hello, beams, short = generate(llm, ["a", "b", "c"], params)
    assert (hello.outputs[0].text, len(hello.outputs)) == ("Hello", 1)
    assert [b.token_ids for b in beams.outputs] == [
        found.tokens for found in search(language, rules(PARAMS))
    ]
    assert short.outputs[0].finish_reason == "length"


def test_the_rules_reach_the_engine(make, language):
    for rule in (True, False, "never", None):
        for penalty in (-1.0, 0.0, 2.0):
            params = BeamSearchParams(3, 9, early_stopping=rule, length_penalty=penalty)
            (output,) = generate(make(), [60], params)
            expected = search(language, rules(params))
            assert [b.token_ids for b in output.outputs] == [f.tokens for f in expected]


def test_other_ways_to_generate(make):
    llm = make()
    (expected,) = [output.outputs for output in generate(llm, [60])]
    (output,) = llm.generate_iter([[60]], PARAMS)
    assert output.outputs == expected
    (output,) = llm.generate_iter(iter([[60]]), iter([PARAMS]))
    assert output.outputs == expected
    llm.enqueue([[60], [61]], [PARAMS, SamplingParams(max_tokens=3)], use_tqdm=False)
    first, second = llm.wait_for_completion(use_tqdm=False)
    assert first.outputs == expected
    assert len(second.outputs) == 1
    message = [{"role": "user", "content": "Hi"}]
    (chat,) = llm.chat(message, PARAMS, use_tqdm=False)
    assert len(chat.outputs) == 4


def test_other_parameters_are_refused_as_before(make):
    with pytest.raises(TypeError, match="params must be either SamplingParams or PoolingParams"):
        generate(make(), "a", 5)


def test_the_copy_is_of_the_time_of_the_call(make, language):
    llm = make()
    params = BeamSearchParams(2, 5)
    llm.enqueue([60], params, use_tqdm=False)
    params.beam_width = 3
    (first,) = llm.wait_for_completion(use_tqdm=False)
    (second,) = generate(llm, [60], params)
    assert (len(first.outputs), len(second.outputs)) == (2, 3)


# Ends.


def test_other_end_tokens(make, language, alphabet, backend):
    end = alphabet[4]
    params = BeamSearchParams(4, 8, stop_token_ids=[end])
    (output,) = generate(make(), [60], params)
    expected = search(language, rules(params, (EOS, end)))
    assert [b.token_ids for b in output.outputs] == [f.tokens for f in expected]
    by_end = [b for b in output.outputs if b.token_ids[-1] == end]
    assert by_end
    for beam in by_end:
        assert (beam.finish_reason, beam.stop_reason) == ("stop", end)
        assert beam.text == backend.decode(beam.token_ids[:-1])
    kept = dataclasses.replace(params, include_stop_str_in_output=True)
    (output,) = generate(make(), [60], kept)
    for beam in output.outputs:
        assert beam.text == backend.decode(beam.token_ids, skip_special_tokens=True)


def test_ignore_eos(make, language):
    params = BeamSearchParams(4, 6, ignore_eos=True)
    (output,) = generate(make(), [60], params)
    assert [b.token_ids for b in output.outputs] == [
        found.tokens for found in search(language, rules(params, ()))
    ]
    assert {b.finish_reason for b in output.outputs} == {"length"}


def test_eos_of_the_generation_config(make, language, model):
    (model / "generation_config.json").write_text(f'{{"eos_token_id": [{EOS}, {EOT}]}}')
    llm = make()
    generate(llm, [60])
    assert list(llm.fake.added[-1].params.tokens.extra_eos_token_ids) == [EOT]


@pytest.mark.parametrize("stop", ["r", ["ox in", "é"], ["s d", "ox"]])
@pytest.mark.parametrize("include", [False, True])
def test_stop_strings(make, backend, stop, include):
    llm = make()
    params = BeamSearchParams(6, 8, stop=stop, include_stop_str_in_output=include, ignore_eos=True)
    (output,) = generate(llm, "The fox", params)
    (result,) = llm.beam_search("The fox", params)
    stopped = 0
    for beam, sequence in zip(output.outputs, result.sequences, strict=True):
        uncut = backend.decode(beam.token_ids, skip_special_tokens=True)
        whole = "The fox" + beam.text
        if isinstance(beam.stop_reason, str):
            stopped += 1
            assert beam.finish_reason == "stop"
            assert beam.stop_reason in params.stop
            at = uncut.index(beam.stop_reason)
            end = at + len(beam.stop_reason) if include else at
            assert beam.text == uncut[:end]
            before = backend.decode(beam.token_ids[:-1], skip_special_tokens=True)
            assert beam.stop_reason not in before
        else:
            whole = "The fox" + uncut
            assert not any(text in uncut for text in params.stop)
        assert sequence.text == whole
        assert sequence.tokens[-len(beam.token_ids) :] == beam.token_ids
        assert sequence.stop_reason == beam.stop_reason
    assert stopped


def test_stop_strings_need_a_tokenizer(make):
    llm = make(skip_tokenizer_init=True)
    with pytest.raises(ValidationError, match="stop in a beam search needs a tokenizer"):
        llm.beam_search([[60]], BeamSearchParams(2, 5, stop="x"))
    (output,) = llm.beam_search([[60]], PARAMS)
    assert output.sequences[0].text is None
    (output,) = generate(llm, [60])
    assert output.outputs[0].text == ""


# Streams.


def test_stream(make, language, backend):
    llm = make()
    *before, last = llm.stream(["The fox"], PARAMS)
    assert [output.finished for output in before] == [False] * len(before)
    assert [len(output.outputs[0].token_ids) for output in before] == list(
        range(1, len(before) + 1)
    )
    for output in before:
        (best,) = output.outputs
        assert best.index == 0
        assert best.finish_reason is None
        assert backend.decode(best.token_ids).startswith(best.text.rstrip("\ufffd"))
        total = sum(language(best.token_ids[:i])[t] for i, t in enumerate(best.token_ids))
        assert best.cumulative_logprob == pytest.approx(total)
    assert last.finished
    assert last.outputs == generate(llm, "The fox")[0].outputs
    snapshots = [output.outputs[0].token_ids for output in before]
    changes = sum(b[: len(a)] != a for a, b in itertools.pairwise(snapshots))
    assert changes, "the best beam never changed: the test shows nothing"


def test_streams_of_searches_and_samples(make):
    llm = make()
    params = [PARAMS, SamplingParams(max_tokens=20)]
    outputs = list(llm.stream(["a", "b"], params))
    texts = [o.outputs[0].text for o in outputs if o.prompt_index == 1]
    assert "".join(texts) == "Hello"
    assert [o.finished for o in outputs if o.prompt_index == 0][-1]


def test_stream_interval(make):
    llm = make(stream_interval=3)
    *before, last = llm.stream([[60]], BeamSearchParams(4, 7, ignore_eos=True))
    assert [len(output.outputs[0].token_ids) for output in before] == [1, 4]
    assert last.finished


def test_closing_a_stream_aborts(make):
    llm = make()
    outputs = llm.stream([[60]], PARAMS)
    next(outputs)
    outputs.close()
    assert not llm.fake.live
    assert not llm._core.in_flight


@pytest.mark.parametrize("kind", [RequestOutputKind.CUMULATIVE, RequestOutputKind.FINAL_ONLY])
def test_async(monkeypatch, model, backend, language, kind):
    engine = engine_saying(backend, "Hello", threaded=True)
    engine.language = language
    fake_core.use(monkeypatch, engine)
    params = dataclasses.replace(PARAMS, output_kind=kind)

    async def run():
        async with AsyncLLM(str(model)) as llm:
            return [output async for output in llm.generate("The fox", params)]

    *before, last = asyncio.run(run())
    assert last.finished
    assert [b.token_ids for b in last.outputs] == [
        f.tokens for f in search(language, rules(PARAMS))
    ]
    if kind == RequestOutputKind.FINAL_ONLY:
        assert not before
    else:
        assert all(len(output.outputs) == 1 and not output.finished for output in before)


# Errors.


def test_an_error_while_it_runs(make):
    engine = FakeEngine(failing="the logits hold a NaN")
    llm = make(engine)
    with pytest.warns(UserWarning, match="request 0 failed: the logits hold a NaN"):
        bad, good = generate(llm, [[666], [60]])
    (beam,) = bad.outputs
    assert (beam.finish_reason, beam.error) == ("error", "the logits hold a NaN")
    assert (beam.text, beam.token_ids) == ("", [])
    assert len(good.outputs) == 4
    with pytest.warns(UserWarning, match="failed"):
        (output,) = llm.beam_search([666], PARAMS)
    assert output.sequences[0].finish_reason == "error"


def test_refused_prompts_as_results(make):
    bad, good = generate(make(), [[1000], [60]], on_error="return")
    assert bad.outputs[0].finish_reason == "error"
    assert len(good.outputs) == 4


@pytest.mark.parametrize("streamed", [False, True])
def test_abort_keeps_the_best_beam_so_far(make, streamed):
    engine = FakeEngine()
    llm = make(engine)

    def abort(engine):
        if engine.num_steps == 4:
            llm.abort("0")

    engine.before_step = abort
    params = BeamSearchParams(4, 60, ignore_eos=True)
    *_, last = llm.stream([60], params) if streamed else generate(llm, [60], params)
    (beam,) = last.outputs
    assert (beam.finish_reason, last.finished) == ("abort", True)
    assert bool(beam.token_ids) == streamed  # without a stream the engine does not tell
    assert not engine.live
