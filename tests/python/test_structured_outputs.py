"""Structured output: every text that ended is of its structure, by the word of other libraries, and
what cannot be enforced is refused when it is submitted."""

from __future__ import annotations

import json
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import regex
import structured_corpus as corpus
from octavo import LLM, RequestOutput, SamplingParams, ValidationError
from structured_corpus import Case

MAX_TOKENS = 96


@pytest.fixture(scope="module")
def llm(smollm2: Path) -> Iterator[LLM]:
    with LLM(
        str(smollm2), max_model_len=384, max_num_seqs=32, num_gpu_blocks_override=900
    ) as model:
        yield model


@pytest.fixture(scope="module")
def noise(tiny_model: Callable[..., Path]) -> Iterator[LLM]:
    """A model whose texts are random bytes: whatever a structure allows, it tries."""
    with LLM(str(tiny_model("llama", tokenizer=True)), dtype="float32", max_model_len=256) as model:
        yield model


def ask(llm: LLM, cases: list[Case], params: list[SamplingParams]) -> list[RequestOutput]:
    conversations = [[{"role": "user", "content": case.request}] for case in cases]
    return llm.chat(conversations, params, use_tqdm=False)


def check(case: Case, output: RequestOutput) -> int:
    """Returns how many samples ended by themselves; those that were cut are only looked at as
    beginnings."""
    ended = 0
    for sample in output.outputs:
        what = f"{case.structure}: {sample.finish_reason} {sample.text!r} {sample.error}"
        assert sample.finish_reason in ("stop", "length"), what
        if sample.finish_reason == "stop":
            assert case.is_whole(sample.text), what
            ended += 1
        else:
            assert case.is_prefix(sample.text), what
    return ended


def test_200_generations(llm):
    cases = [
        *(corpus.SCHEMAS * 4)[:80],
        *corpus.REGEXES * 5,
        *corpus.CHOICES * 5,
        *[corpus.ANY_OBJECT] * 10,
        *corpus.GRAMMARS * 10,
    ]
    assert len(cases) == 200
    params = [
        SamplingParams(
            temperature=0.8 + 0.1 * (i % 3),
            seed=i,
            max_tokens=MAX_TOKENS,
            structured_outputs=case.structure,
        )
        for i, case in enumerate(cases)
    ]
    outputs = ask(llm, cases, params)
    ended = sum(check(case, output) for case, output in zip(cases, outputs, strict=True))
    assert ended > 160, "most texts end in time"
    kinds = {next(iter(case.structure)) for case, output in zip(cases, outputs, strict=True)}
    assert kinds == {"json", "regex", "choice", "json_object", "grammar"}


def refused(llm: LLM, structure: dict[str, Any]) -> bool:
    """Whether a structure is refused when it is submitted, by its parameter's name."""
    refusal = None
    try:
        params = SamplingParams(max_tokens=1, structured_outputs=structure)
        llm.generate("x", params, use_tqdm=False)
    except ValidationError as error:
        refusal = str(error)
    assert refusal is None or "structured_outputs" in refusal
    return refusal is not None


def test_every_keyword_is_refused_or_enforced(noise):
    check_peculiar(
        noise, [corpus.from_schema("", schema) for schema in corpus.PECULIAR_SCHEMAS], least=25
    )


def test_every_form_of_a_regex_is_refused_or_enforced(noise):
    cases = []
    for pattern in corpus.PECULIAR_REGEXES:
        if corpus.is_compiled_by(re, pattern) or corpus.is_compiled_by(regex, pattern):
            cases.append(corpus.from_regex("", pattern))
        else:
            assert refused(noise, {"regex": pattern}), pattern
    check_peculiar(noise, cases, least=30)


def check_peculiar(noise: LLM, cases: list[Case], least: int) -> None:
    taken = [case for case in cases if not refused(noise, case.structure)]
    assert len(taken) >= least
    # What closes a text is made likely, or random strings would hardly end.
    closing = {noise.get_tokenizer().convert_tokens_to_ids(char): 4.0 for char in '"]},'}
    params = [
        SamplingParams(
            n=4, seed=i, max_tokens=60, logit_bias=closing, structured_outputs=case.structure
        )
        for i, case in enumerate(taken)
    ]
    outputs = noise.generate(["x"] * len(taken), params, use_tqdm=False)
    ended = sum(check(case, output) for case, output in zip(taken, outputs, strict=True))
    assert ended > len(taken)


def bits(output: RequestOutput) -> list[Any]:
    return [
        (
            sample.token_ids,
            sample.text,
            [
                [(i, struct.pack("<d", entry.logprob)) for i, entry in position.items()]
                for position in sample.logprobs
            ],
        )
        for sample in output.outputs
    ]


def test_neighbours_are_not_disturbed(llm):
    prompts = [f"Tell me about the number {i}." for i in range(8)]
    plain = [
        SamplingParams(temperature=i % 2, seed=i, max_tokens=20, logprobs=2, ignore_eos=True)
        for i in range(8)
    ]
    alone = [bits(output) for output in llm.generate(prompts, plain, use_tqdm=False)]
    cases = [corpus.SCHEMAS[0], corpus.REGEXES[0], corpus.CHOICES[0], corpus.GRAMMARS[0]] * 2
    structured = [
        SamplingParams(seed=i, max_tokens=30, structured_outputs=case.structure)
        for i, case in enumerate(cases)
    ]
    both = [*prompts, *[case.request for case in cases]]
    order = [i // 2 + 8 * (i % 2) for i in range(16)]  # one plain, one structured
    mixed = [both[i] for i in order]
    params = [[*plain, *structured][i] for i in order]
    outputs = llm.generate(mixed, params, use_tqdm=False)
    assert [bits(output) for output in outputs[::2]] == alone
    for case, output in zip(cases, outputs[1::2], strict=True):
        check(case, output)


def test_a_structured_request_does_not_depend_on_its_neighbours(llm):
    cases = [corpus.SCHEMAS[0], corpus.SCHEMAS[7], corpus.REGEXES[3], corpus.CHOICES[1]]
    params = [
        SamplingParams(seed=i, max_tokens=30, logprobs=2, structured_outputs=case.structure)
        for i, case in enumerate(cases)
    ]
    prompts = [case.request for case in cases]
    together = [bits(output) for output in llm.generate(prompts, params, use_tqdm=False)]
    alone = [
        bits(llm.generate(prompt, each, use_tqdm=False)[0])
        for prompt, each in zip(prompts, params, strict=True)
    ]
    assert together == alone


def one(llm: LLM, prompt: str = "Say it.", **fields: Any) -> RequestOutput:
    return llm.generate(prompt, SamplingParams(**{"max_tokens": 40, **fields}), use_tqdm=False)[0]


def test_several_samples(llm):
    output = one(llm, n=8, seed=3, structured_outputs={"regex": "[a-z]{3}[0-9]{2}"})
    texts = [sample.text for sample in output.outputs]
    assert all(re.fullmatch("[a-z]{3}[0-9]{2}", text) for text in texts)
    assert len(set(texts)) > 1


def test_greedy(llm):
    structure = {"json": corpus.PERSON}
    first = one(llm, temperature=0, max_tokens=80, structured_outputs=structure)
    again = one(llm, temperature=0, max_tokens=80, structured_outputs=structure)
    assert first.outputs[0].token_ids == again.outputs[0].token_ids
    check(corpus.SCHEMAS[0], first)


def test_stop_strings_cut_the_text(llm):
    (sample,) = one(llm, stop=["-"], structured_outputs={"regex": "[0-9]{3}-[0-9]{4}"}).outputs
    assert re.fullmatch("[0-9]{3}", sample.text)
    assert (sample.finish_reason, sample.stop_reason) == ("stop", "-")


@pytest.mark.parametrize("fields", [{"ignore_eos": True}, {"min_tokens": 30}])
def test_a_whole_text_ends_whatever_is_asked_for(llm, fields):
    (sample,) = one(llm, structured_outputs={"choice": ["yes", "no"]}, **fields).outputs
    assert sample.text in ("yes", "no")
    assert sample.finish_reason == "stop"


def test_min_tokens_hold_while_the_text_can_go_on(llm):
    (sample,) = one(llm, min_tokens=20, structured_outputs={"regex": "[a-z ]+"}).outputs
    assert len(sample.token_ids) > 20
    assert re.fullmatch("[a-z ]+", sample.text)


def test_penalties_and_biases_stay_within_the_structure(llm):
    output = one(
        llm, n=4, seed=1, max_tokens=80, presence_penalty=2, frequency_penalty=2,
        repetition_penalty=1.5, min_p=0.1, top_k=5, top_p=0.5, bad_words=["age"],
        structured_outputs={"regex": "(name|age): [0-9]{1,2}"},
    )  # fmt: skip
    for sample in output.outputs:
        assert re.fullmatch("(name|age): [0-9]{1,2}", sample.text)


def test_no_token_is_left(llm):
    """To rule out all that the structure allows is that request's error, not a wrong text."""
    tokenizer = llm.get_tokenizer()
    letters = [tokenizer.convert_tokens_to_ids(char) for char in "abc"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (sample,) = one(
            llm, allowed_token_ids=letters, structured_outputs={"regex": "[0-9]+"}
        ).outputs
    assert sample.finish_reason == "error"
    assert sample.text == ""


def test_logprobs_are_those_of_the_model(llm):
    prompt = "The answer is"
    (free,) = one(llm, prompt, temperature=0, max_tokens=1, logprobs=20).outputs
    (bound,) = one(
        llm, prompt, temperature=0, max_tokens=1, logprobs=20,
        structured_outputs={"regex": "[0-9]{4}"},
    ).outputs  # fmt: skip
    top = dict(list(free.logprobs[0].items())[:20])
    for token_id, entry in list(bound.logprobs[0].items())[1:]:
        if token_id in top:
            assert entry == top[token_id]


def test_streamed_texts(llm):
    structure = {"json": corpus.PERSON}
    params = SamplingParams(seed=5, max_tokens=80, structured_outputs=structure)
    whole = llm.generate("Describe a person.", params, use_tqdm=False)[0].outputs[0].text
    pieces = [
        output.outputs[0].text
        for output in llm.stream(["Describe a person."], params)
        if output.outputs
    ]
    assert "".join(pieces) == whole
    assert len(pieces) > 3


def test_what_is_refused_by_name(llm):
    for structure, text in [
        ({"json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json": {"type": "number", "multipleOf": 0.5}}, "multipleOf"),
        ({"json": {"anyOf": [{"not": {"type": "null"}}]}}, "not"),
        ({"json": {"$ref": "#/$defs/missing"}}, "missing"),
        ({"regex": "(a"}, "regex"),
        ({"regex": "(a)\\1"}, "regex"),
        ({"grammar": "root ::= undefined_rule"}, "undefined_rule"),
    ]:
        params = SamplingParams(structured_outputs=structure)
        with pytest.raises(ValidationError, match=r"structured_outputs.*" + text):
            llm.generate("x", params, use_tqdm=False)
    assert llm.generate("x", SamplingParams(max_tokens=2), use_tqdm=False)[0].finished


def test_without_a_tokenizer(smollm2):
    with (
        LLM(str(smollm2), skip_tokenizer_init=True, max_model_len=64) as llm,
        pytest.raises(ValidationError, match="tokenizer"),
    ):
        llm.generate(
            {"prompt_token_ids": [1, 2]},
            SamplingParams(detokenize=False, structured_outputs={"regex": "a"}),
            use_tqdm=False,
        )


def test_pydantic_like_models(llm):
    class Model:
        @staticmethod
        def model_json_schema():
            return corpus.PERSON

    (sample,) = one(llm, seed=2, max_tokens=80, structured_outputs={"json": Model}).outputs
    assert sample.finish_reason != "stop" or set(json.loads(sample.text)) == {"name", "age"}
