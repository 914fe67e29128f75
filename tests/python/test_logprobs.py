"""Log-probabilities and bad words as the front end makes them, over a stand-in of the engine."""

import math

import pytest
import text_models
from fake_core import FakeEngine, fake_logprob
from fake_llm import EOS, engine_saying, generate, maker, save_model, small_backend
from octavo import FlatLogprobs, Logprob, SamplingParams, ValidationError
from octavo.logprobs import LogprobsBuilder, TokenTexts
from octavo.token_rules import tokenize_bad_words
from octavo.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def backend():
    return small_backend()


@pytest.fixture
def make(monkeypatch, tmp_path, backend):
    return maker(monkeypatch, save_model(backend, tmp_path), backend)


def only_sample(llm, **fields):
    (output,) = generate(llm, "x", SamplingParams(max_tokens=50, **fields))
    (sample,) = output.outputs
    return sample


# Results.


def test_none_unless_they_were_asked_for(make):
    for fields in ({}, {"flat_logprobs": True}, {"logprobs": False}):
        sample = only_sample(make(), **fields)
        assert sample.logprobs is None
        assert sample.cumulative_logprob is None


@pytest.mark.parametrize("tokens_per_step", [1, 3])
def test_the_sampled_token_comes_first(make, backend, tokens_per_step):
    engine = engine_saying(backend, "Hello, world", tokens_per_step=tokens_per_step)
    sample = only_sample(make(engine=engine), logprobs=3)
    assert sample.text == "Hello, world"
    assert len(sample.logprobs) == len(sample.token_ids) > 3
    for token, entry in zip(sample.token_ids, sample.logprobs, strict=True):
        assert list(entry) == list(dict.fromkeys([token, 0, 1, 2]))
        for i, logprob in entry.items():
            expected = Logprob(fake_logprob(i), i + 1, backend.decode([i], False))
            assert logprob == expected
    total = sum(fake_logprob(i) for i in sample.token_ids)
    assert sample.cumulative_logprob == pytest.approx(total)
    assert list(sample.logprobs[-1]) == [EOS, 0, 1]  # the end token is in the top 3: named once
    assert sample.logprobs[-1][EOS].decoded_token == "</s>"


def test_how_many(make):
    assert all(len(entry) == 1 for entry in only_sample(make(), logprobs=0).logprobs)
    assert all(len(entry) in (1, 2) for entry in only_sample(make(), logprobs=True).logprobs)
    whole = only_sample(make(max_logprobs=-1), logprobs=-1)
    for token, entry in zip(whole.token_ids, whole.logprobs, strict=True):
        assert len(entry) == 1000
        assert next(iter(entry)) == token
    assert whole.logprobs[0][999].decoded_token == ""  # the tokenizer has fewer than the model


def test_of_chosen_ids(make):
    sample = only_sample(make(), logprob_token_ids=[70, EOS, 5])
    assert list(sample.logprobs[0]) == [sample.token_ids[0], 70, EOS, 5]
    assert list(sample.logprobs[-1]) == [EOS, 70, 5]
    assert sample.cumulative_logprob is not None
    many = only_sample(make(), logprob_token_ids=range(100, 200), logprobs=100)
    assert set(range(100, 200)) <= set(many.logprobs[0])


def test_flat(make):
    rows = only_sample(make(), logprobs=2)
    flat = only_sample(make(), logprobs=2, flat_logprobs=True)
    assert isinstance(flat.logprobs, FlatLogprobs)
    assert list(flat.logprobs) == rows.logprobs
    assert flat.cumulative_logprob == rows.cumulative_logprob


def test_each_sample_has_its_own(make):
    (output,) = generate(make("one", "three"), "x", SamplingParams(n=2, logprobs=0, max_tokens=50))
    for sample in output.outputs:
        assert [next(iter(entry)) for entry in sample.logprobs] == sample.token_ids


@pytest.mark.parametrize("flat", [False, True])
def test_a_stop_string_cuts_them_too(make, backend, flat):
    engine = engine_saying(backend, "I say: STOP now, dear", tokens_per_step=4)
    sample = only_sample(make(engine=engine), stop="STOP", logprobs=1, flat_logprobs=flat)
    assert (sample.text, sample.stop_reason) == ("I say: ", "STOP")
    assert len(sample.token_ids) % 4  # the engine gave more than were kept
    assert [next(iter(entry)) for entry in sample.logprobs] == sample.token_ids
    total = sum(fake_logprob(i) for i in sample.token_ids)
    assert sample.cumulative_logprob == pytest.approx(total)


def test_without_text(make):
    sample = only_sample(make(), logprobs=2, detokenize=False)
    assert sample.text == ""
    assert {e.decoded_token for entry in sample.logprobs for e in entry.values()} == {None}
    engine = FakeEngine(reply=lambda p, s, i: [60, EOS][i])
    llm = make(engine=engine, skip_tokenizer_init=True)
    (output,) = generate(llm, [5, 6], SamplingParams(logprobs=0))
    assert output.outputs[0].logprobs[0] == {60: Logprob(fake_logprob(60), 61, None)}


def test_parts_of_characters(make, backend):
    sample = only_sample(make("東"), logprobs=0)
    assert sample.text == "東"
    pairs = zip(sample.token_ids, sample.logprobs, strict=True)
    texts = [entry[i].decoded_token for i, entry in pairs]
    assert texts == [backend.decode([i], False) for i in sample.token_ids]
    assert "\ufffd" in texts[0]


def test_a_failed_request_has_what_it_got(make):
    llm = make(engine=FakeEngine(failing="NaN in the logits", reply=lambda p, s, i: EOS))
    with pytest.warns(UserWarning, match="NaN in the logits"):
        (output,) = generate(llm, [666], SamplingParams(logprobs=1))
    assert output.outputs[0].logprobs == []
    assert output.outputs[0].cumulative_logprob == 0.0


def test_too_many_and_out_of_vocabulary(make):
    llm = make()
    for fields, text in (
        (
            {"logprobs": 21},
            "Requested sample logprobs of 21, which is greater than max allowed: 20",
        ),
        ({"logprobs": -1}, "Requested sample logprobs of 1000, which is greater than max"),
        ({"logprob_token_ids": [1000]}, r"token_id\(s\) \[1000\] in logprob_token_ids contain out"),
        ({"logit_bias": {1000: 1}}, r"token_id\(s\) \[1000\] in logit_bias contain out-of-vocab"),
        ({"allowed_token_ids": [-1]}, "allowed_token_ids contains out-of-vocab token id!"),
    ):
        with pytest.raises(ValidationError, match=text):
            generate(llm, ["a", "b"], [SamplingParams(), SamplingParams(**fields)])
        assert not llm.fake.added
    only_sample(make(max_logprobs=21), logprobs=21)
    with pytest.raises(ValidationError, match="max allowed: 0"):
        only_sample(make(max_logprobs=0), logprobs=1)


# FlatLogprobs.


def flat_of(*positions):
    flat = FlatLogprobs()
    flat.extend(positions)
    return flat


def test_flat_logprobs_act_as_a_list():
    one, two = {5: Logprob(-0.5, 1, "a"), 6: Logprob(-1.5, 2, "b")}, {7: Logprob(-math.inf, 9)}
    flat = flat_of(one, None, two)
    assert len(flat) == 3
    assert list(flat) == [one, {}, two]
    assert (flat[0], flat[-1]) == (one, two)
    assert (flat.start_indices, flat.end_indices) == ([0, 2, 2], [2, 2, 3])
    assert flat.token_ids == [5, 6, 7]
    assert flat.ranks == [1, 2, 9]
    assert flat.decoded_tokens == ["a", "b", None]
    assert list(flat[1:]) == [{}, two]
    assert flat[::-1] == flat_of(two, None, one)
    copy = flat[:]
    copy.append(one)
    assert (len(copy), len(flat)) == (4, 3)
    with pytest.raises(IndexError):
        flat[3]
    flat.extend(flat)
    assert list(flat) == [one, {}, two] * 2


def test_flat_logprobs_only_grow():
    flat = flat_of({5: Logprob(-0.5)})
    with pytest.raises(TypeError, match="Cannot set logprobs in FlatLogprobs"):
        flat[0] = {}
    with pytest.raises(TypeError, match="Cannot delete logprobs from FlatLogprobs"):
        del flat[0]
    with pytest.raises(TypeError, match="Cannot insert logprobs to FlatLogprobs"):
        flat.insert(0, {})


def test_the_collected_ones_are_copied():
    builder = LogprobsBuilder(flat=False, texts=None)
    builder.add([5, 4, 5], [-1.0, -0.5, -1.0], [2, 1, 2])
    first = builder.positions
    builder.add([4], [-0.25], [1])
    assert first == [{5: Logprob(-1.0, 2), 4: Logprob(-0.5, 1)}]
    assert list(first[0]) == [5, 4]
    assert builder.cumulative == -1.25


def test_a_decoder_that_fails_gives_no_text(backend):
    class Broken(Tokenizer):
        def decode(self, token_ids, skip_special_tokens=False):
            raise RuntimeError("no such token")

    assert TokenTexts(Broken(backend)).of(5) == ""


# Bad words.


def ids(backend, text):
    return backend.encode(text, add_special_tokens=False).ids


def test_bad_words_reach_the_engine(make, backend):
    llm = make()
    only_sample(llm, bad_words=["fox"])
    assert llm.fake.added[-1].params.bad_words == [ids(backend, "fox"), ids(backend, " fox")]
    only_sample(llm)
    assert llm.fake.added[-1].params.bad_words == []
    llm = make(engine=FakeEngine(reply=lambda p, s, i: EOS), skip_tokenizer_init=True)
    with pytest.raises(ValidationError, match="bad_words needs a tokenizer"):
        generate(llm, [5], SamplingParams(bad_words=["fox"]))


def test_parameters_are_prepared_once_for_all_prompts(make, monkeypatch):
    calls = []

    def count(words, tokenizer, vocab_size):
        calls.append(words)
        return tokenize_bad_words(words, tokenizer, vocab_size)

    monkeypatch.setattr("octavo.inference_core.tokenize_bad_words", count)
    llm = make()
    shared, other = SamplingParams(bad_words=["fox"]), SamplingParams(bad_words=["dog"])
    generate(llm, ["a"] * 4, [shared, other, shared, shared])
    assert calls == [["fox"], ["dog"]]
    banned = [sequence.params.bad_words for sequence in llm.fake.added]
    assert banned[0] == banned[2] == banned[3] != banned[1]


def test_spellings_of_bad_words(backend):
    tokenizer = Tokenizer(backend)
    plain, spaced = ids(backend, "fox"), ids(backend, " fox")
    assert plain != spaced
    for words in (["fox"], [" fox"], ["fox", "  fox"]):
        assert tokenize_bad_words(words, tokenizer, 1000) == [plain, spaced]
    assert tokenize_bad_words([], None, 1000) == []
    assert tokenize_bad_words(["\n"], tokenizer, 1000) == [ids(backend, "\n")]


def test_spellings_where_the_tokenizer_adds_the_space():
    backend = text_models.sentencepiece_like()
    sequences = tokenize_bad_words(["fox"], Tokenizer(backend), len(backend.get_vocab()))
    assert sequences[0] == ids(backend, "fox")
    for one in sequences:
        others = [other for other in sequences if other is not one]
        assert not any(one[-len(other) :] == other for other in others)


def test_bad_words_that_do_not_fit(backend):
    tokenizer = Tokenizer(backend)
    with pytest.raises(ValidationError, match="The model vocabulary size is 10, but the following"):
        tokenize_bad_words(["fox"], tokenizer, 10)
    words = [f"{i}x" for i in range(65)]
    assert len(tokenize_bad_words(words[:64], tokenizer, 1000)) <= 128
    with pytest.raises(ValidationError, match="at most 128 token sequences after tokenization"):
        tokenize_bad_words([f"{i}q" for i in range(129)], tokenizer, 1000)
    with pytest.raises(ValidationError, match="not valid Unicode"):
        tokenize_bad_words(["\ud800"], tokenizer, 1000)
