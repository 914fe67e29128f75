"""Submission: takes the prompts of one call one after another, and hands each to the engine as soon
as it is tokenized."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from octavo.batch import Batch
from octavo.beam_search import BeamSearchParams, RequestParams
from octavo.errors import NotSupportedError, ValidationError, validation_error
from octavo.inference_core import InferenceCore, ParamsCache
from octavo.inputs import ParsedPrompt, is_token_list, parse_prompt
from octavo.outputs import RequestOutput, failed_outputs
from octavo.request import RefusedPrompt, Request
from octavo.sampling_params import RequestOutputKind, SamplingParams
from octavo.value_checks import bad, require_int

_END = object()
_LOOK_SECONDS = 0.001  # between two looks for results while prompts are submitted

# A prompt as its caller gave it, or parsed, with its parameters.
PromptAndParams = tuple[Any, RequestParams]


class RequestCounter:
    """Counts the requests of an LLM. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counter = 0

    def __iter__(self) -> RequestCounter:
        return self

    def __next__(self) -> int:
        return self.take(1)[0]

    def take(self, count: int) -> range:
        """The next numbers, which nobody else gets."""
        with self._lock:
            first, self.counter = self.counter, self.counter + count
        return range(first, first + count)


class Submission:
    """The prompts of one call on their way.

    Args:
        core: the model.
        batch: where the prompts go.
        request_ids: a name for each prompt.
        kind: what the requests' ``take`` gives.
        on_error: "raise", or "return" to make a result of a prompt that is refused.
        tokenization_kwargs: for prompts of text.
    """

    def __init__(
        self,
        core: InferenceCore,
        batch: Batch,
        request_ids: Iterator[int],
        *,
        kind: RequestOutputKind = RequestOutputKind.FINAL_ONLY,
        on_error: str = "raise",
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._core = core
        self._batch = batch
        self._request_ids = request_ids
        self._kind = kind
        self._on_error = check_on_error(on_error)
        self._tokenization_kwargs = tokenization_kwargs
        self._params = ParamsCache(core)
        self._num_submitted = 0
        self.num_open = 0  # submitted, and not yet counted off by who takes the results

    def check(self, pairs: Iterable[PromptAndParams]) -> None:
        """Looks at all parameters before the first prompt is submitted, where an error of one of
        them is to be raised. Raises ValidationError."""
        if self._on_error == "raise":
            for params in {id(params): params for _, params in pairs}.values():
                self._params.get(params)

    def run(
        self, prompts: Iterable[PromptAndParams], most_open: int | None = None
    ) -> Iterator[Request | RefusedPrompt]:
        """Submits the prompts, never more than ``most_open`` at once; gives each request for which
        something has come, until all have ended."""
        source, exhausted = iter(prompts), False
        looked = time.monotonic()
        while True:
            if not exhausted and (most_open is None or self.num_open < most_open):
                item: Any = next(source, _END)
                if item is _END:
                    exhausted = True
                else:
                    request = self.submit(*item)
                    if isinstance(request, RefusedPrompt):
                        yield request
                if time.monotonic() - looked > _LOOK_SECONDS:
                    looked = time.monotonic()
                    yield from self._batch.poll()
            elif self._batch.num_in_flight:
                yield from self._batch.wait()
            else:
                return

    def submit(self, prompt: Any, params: RequestParams) -> Request | RefusedPrompt:
        """Hands one prompt to the engine.

        Raises ValidationError, NotSupportedError or TypeError for one that is refused, unless
        ``on_error`` is "return".
        """
        check_params(params)
        index, request_id = self._num_submitted, str(next(self._request_ids))
        self._num_submitted += 1
        self.num_open += 1
        known: tuple[str | None, list[int] | None] = (None, None)
        try:
            parsed = prompt if isinstance(prompt, ParsedPrompt) else parse_prompt(prompt)
            known = parsed.text, parsed.token_ids
            copied, core_params = self._params.get(params)
            job = self._core.job(index, parsed, copied, core_params, self._tokenization_kwargs)
            known = job.text, job.token_ids
            return self._batch.add(request_id, job, self._kind)
        except (ValidationError, NotSupportedError, TypeError) as error:
            if self._on_error == "raise":
                raise
            return RefusedPrompt(request_id, index, known, error)


def warn_of_errors(outputs: Sequence[RequestOutput], stacklevel: int) -> None:
    """Warns of each sample that has ended by an error."""
    for output, error in failed_outputs(outputs):
        warnings.warn(f"request {output.request_id} failed: {error}", stacklevel=stacklevel)


def list_prompts(prompts: Any) -> Sequence[Any]:
    """The prompts of a call, in order. A string, a dictionary or a list of ints is one prompt.

    Raises TypeError for what is neither a prompt nor a sequence.
    """
    if isinstance(prompts, (str, dict)) or is_token_list(prompts):
        return [prompts]
    if hasattr(prompts, "ndim"):  # an array: its rows
        return list(prompts)
    if not isinstance(prompts, Sequence) or isinstance(prompts, (bytes, bytearray)):
        parse_prompt(prompts)  # raises TypeError
    return list(prompts)


def old_prompts(prompts: Any, prompt_token_ids: Any) -> Any:
    """The prompts, which older programs pass as ``prompt_token_ids``."""
    if prompt_token_ids is not None:
        warnings.warn(
            "prompt_token_ids is deprecated; pass token ids as prompts, or a TokensPrompt",
            DeprecationWarning,
            stacklevel=3,
        )
        if prompts is not None:
            raise ValidationError("expected either prompts or prompt_token_ids, got both")
        return prompt_token_ids
    if prompts is None:
        raise TypeError("generate() needs prompts")
    return prompts


def parse_all(prompts: Sequence[Any], on_error: str) -> list[Any]:
    """The prompts parsed, so that a form that is none is known before any is submitted; those that
    cannot be are left for ``Submission.submit`` to refuse where ``on_error`` is "return"."""
    if on_error == "return":
        return list(prompts)
    return [parse_prompt(prompt) for prompt in prompts]


def params_of_each(
    core: InferenceCore, count: int, params: RequestParams | Sequence[RequestParams] | None
) -> list[RequestParams]:
    """The parameters of each of ``count`` prompts: one for all, or one for each; None is the
    model's defaults.

    Raises ValidationError where their number is wrong, TypeError for another type.
    """
    if params is None:
        params = core.default_sampling_params()
    if isinstance(params, (list, tuple)):
        check_length(count, params, "params")
        each = list(params)
    else:
        check_params(params)
        each = [params] * count
    for one in each:
        check_params(one)
    return each


def beam_pairs(
    core: InferenceCore, prompts: Any, params: Any, priority: Any, concurrency_limit: Any
) -> list[PromptAndParams]:
    """The prompts of ``LLM.beam_search`` with their parameters. Raises ValidationError, and
    TypeError for a form that is no prompt and for other parameters than BeamSearchParams."""
    if concurrency_limit is not None:
        require_int("concurrency_limit", concurrency_limit)
        if concurrency_limit < 1:
            text = f"concurrency_limit must be at least 1, got {concurrency_limit}."
            raise bad("concurrency_limit", concurrency_limit, text)
    parsed = parse_all(list_prompts(prompts), "raise")
    if not parsed:
        raise ValidationError("You must pass at least one prompt")
    check_length(len(parsed), priority, "priority")
    for one in params if isinstance(params, (list, tuple)) else [params]:
        if not isinstance(one, BeamSearchParams):
            raise TypeError(f"params must be BeamSearchParams, but got {type(one).__name__}")
    return list(zip(parsed, params_of_each(core, len(parsed), params), strict=True))


def check_length(count: int, values: Any, name: str) -> None:
    """Raises ValidationError for a list that has not a value for each prompt."""
    if isinstance(values, (list, tuple)) and len(values) != count:
        raise ValidationError(
            f"The lengths of prompts ({count}) and {name} ({len(values)}) must be the same."
        )


def check_params(params: Any) -> None:
    """Raises TypeError for what are no parameters."""
    if not isinstance(params, (SamplingParams, BeamSearchParams)):
        raise TypeError(
            "params must be either SamplingParams or PoolingParams (or BeamSearchParams), "
            f"but got {type(params).__name__}"
        )


def check_on_error(on_error: Any) -> str:
    """The value, "raise" or "return". Raises ValidationError for another."""
    if on_error not in ("raise", "return"):
        raise validation_error(
            f"on_error must be 'raise' or 'return', got {on_error!r}", parameter="on_error"
        )
    return str(on_error)


def refuse(name: str, value: Any) -> None:
    """Raises NotSupportedError for an argument that asks for what Octavo does not do."""
    if value is not None and value not in ([], {}):
        raise NotSupportedError(f"{name} is not supported by this version of Octavo; expected None")
