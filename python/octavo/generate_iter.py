"""The iterators of LLM: ``stream`` gives deltas as they come, ``generate_iter`` the results of any
iterable of prompts in bounded memory."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sized
from typing import Any

from octavo.beam_search import BeamSearchParams, RequestParams
from octavo.errors import ValidationError, validation_error
from octavo.inference_core import InferenceCore
from octavo.inputs import is_token_list
from octavo.outputs import RequestOutput
from octavo.progress import ProgressBar, UseTqdm
from octavo.request import RefusedPrompt
from octavo.sampling_params import RequestOutputKind, SamplingParams
from octavo.submission import (
    PromptAndParams,
    Submission,
    check_on_error,
    check_params,
    warn_of_errors,
)

_LEAST_IN_FLIGHT = 64
_ONE_FOR_ALL = (SamplingParams, BeamSearchParams)


def stream(
    core: InferenceCore,
    pairs: list[PromptAndParams],
    request_ids: Iterator[int],
    on_error: str,
    tokenization_kwargs: Mapping[str, Any] | None,
) -> Generator[RequestOutput, None, None]:
    """See ``LLM.stream``."""
    with core.batch() as batch:
        submission = Submission(
            core,
            batch,
            request_ids,
            kind=RequestOutputKind.DELTA,
            on_error=on_error,
            tokenization_kwargs=tokenization_kwargs,
        )
        submission.check(pairs)
        for request in submission.run(pairs):
            outputs = request.take()
            if not isinstance(request, RefusedPrompt):
                warn_of_errors(outputs, stacklevel=3)
            yield from outputs


def generate_iter(
    core: InferenceCore,
    request_ids: Iterator[int],
    prompts: Iterable[Any],
    params: RequestParams | Iterable[RequestParams] | None,
    *,
    in_order: bool,
    max_in_flight: int | None,
    on_error: str,
    use_tqdm: UseTqdm,
    tokenization_kwargs: Mapping[str, Any] | None,
) -> Generator[RequestOutput, None, None]:
    """See ``LLM.generate_iter``. The arguments are checked before the first ``next``."""
    check_on_error(on_error)
    most = _most_in_flight(core, max_in_flight)
    if isinstance(prompts, (str, dict)) or is_token_list(prompts):
        prompts = [prompts]
    if params is None:
        params = core.default_sampling_params()
    if not isinstance(params, _ONE_FOR_ALL) and not isinstance(params, Iterable):
        check_params(params)
    total = _total(prompts, params)
    pairs = _pair(iter(prompts), params)

    def results() -> Generator[RequestOutput, None, None]:
        with core.batch() as batch, ProgressBar(use_tqdm, total) as bar:
            submission = Submission(
                core,
                batch,
                request_ids,
                on_error=on_error,
                tokenization_kwargs=tokenization_kwargs,
            )
            finished = _finished(submission, pairs, most)
            for output in _ordered(finished) if in_order else finished:
                bar.update(output)
                submission.num_open -= 1
                yield output

    return results()


def _finished(
    submission: Submission, pairs: Iterator[PromptAndParams], most: int
) -> Iterator[RequestOutput]:
    for request in submission.run(pairs, most):
        if request.finished:
            output = request.output()
            if not isinstance(request, RefusedPrompt):
                warn_of_errors([output], stacklevel=4)
            yield output


def _ordered(outputs: Iterator[RequestOutput]) -> Iterator[RequestOutput]:
    """The outputs by prompt_index; those that come early wait."""
    early: dict[int | None, RequestOutput] = {}
    following = 0
    for output in outputs:
        early[output.prompt_index] = output
        while following in early:
            yield early.pop(following)
            following += 1


def _pair(
    prompts: Iterator[Any], params: RequestParams | Iterable[RequestParams]
) -> Iterator[PromptAndParams]:
    if isinstance(params, _ONE_FOR_ALL):
        for prompt in prompts:
            yield prompt, params
        return
    each = iter(params)
    for count, prompt in enumerate(prompts):
        one = next(each, None)
        if one is None:
            raise ValidationError(
                f"there are {count} sampling_params and more prompts; expected one for each"
            )
        yield prompt, one


def _most_in_flight(core: InferenceCore, max_in_flight: int | None) -> int:
    if max_in_flight is None:
        return max(_LEAST_IN_FLIGHT, 2 * core.max_num_seqs)
    if not isinstance(max_in_flight, int) or isinstance(max_in_flight, bool) or max_in_flight < 1:
        raise validation_error(
            f"max_in_flight must be at least 1, got {max_in_flight!r}", parameter="max_in_flight"
        )
    return max_in_flight


def _total(prompts: Iterable[Any], params: RequestParams | Iterable[RequestParams]) -> int | None:
    """The samples that are expected, None where nobody knows."""
    if isinstance(prompts, Sized) and isinstance(params, _ONE_FOR_ALL):
        return len(prompts) * params.n
    return None
