"""What a call gives back: a RequestOutput for each prompt, with a CompletionOutput for each sample.

The fields are vLLM's; those that this version does not compute are None.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo.logprobs import Logprob, PromptLogprobs, SampleLogprobs

__all__ = [
    "CompletionOutput",
    "Logprob",
    "PromptLogprobs",
    "RequestOutput",
    "RequestStateStats",
    "SampleLogprobs",
    "failed_outputs",
]


@dataclass
class RequestStateStats:
    """When a request passed which point. ``arrival_time`` is wall-clock; the ``_ts`` are seconds of
    ``time.monotonic``, 0 for a point that was not reached. ``scheduled_ts`` is the first time that
    it was scheduled; after a preemption it is scheduled again."""

    num_generation_tokens: int = 0
    arrival_time: float = 0.0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    first_token_latency: float = 0.0  # from arrival to the first token
    num_preemptions: int = 0
    is_corrupted: bool = False

    @property
    def queue_time(self) -> float:
        """Seconds that the request waited for its first step."""
        return _between(self.queued_ts, self.scheduled_ts)

    @property
    def prefill_time(self) -> float:
        """Seconds from its first step to its first token."""
        return _between(self.scheduled_ts, self.first_token_ts)

    @property
    def decode_time(self) -> float:
        """Seconds from its first token to its last."""
        return _between(self.first_token_ts, self.last_token_ts)

    @property
    def inference_time(self) -> float:
        """Seconds from its first step to its last token."""
        return _between(self.scheduled_ts, self.last_token_ts)

    @property
    def e2e(self) -> float:
        """Seconds from its submission to its last token."""
        return _between(self.queued_ts, self.last_token_ts)


def _between(start: float, end: float) -> float:
    """Seconds, 0 where one of the points was not reached."""
    return max(end - start, 0.0) if start > 0 and end > 0 else 0.0


@dataclass
class CompletionOutput:
    """One sample of a prompt.

    ``token_ids`` holds the end token too, ``text`` does not. ``finish_reason`` is "stop", "length",
    "abort", "error", "repetition", or None while the sample runs. ``stop_reason`` is the stop
    string or the stop token's id, None for the end-of-sequence token, and "repetition_detected" for
    a repetition. ``error`` says what went wrong with ``finish_reason="error"``. ``logprobs`` has an
    entry for each token, a ``dict[int, Logprob]`` by token id with the sampled one first, and
    ``cumulative_logprob`` is the sum over the sampled tokens; both are None unless they were asked
    for.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: SampleLogprobs | None = None
    routed_experts: Any = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = None
    sampling_mask: Any = None
    spec_decode_metrics: Any = None
    weight_versions: Any = None
    error: str | None = field(default=None, kw_only=True)

    def finished(self) -> bool:
        """Whether the sample has ended."""
        return self.finish_reason is not None

    def __repr__(self) -> str:
        error = f", error={self.error!r}" if self.error is not None else ""
        return (
            f"CompletionOutput(index={self.index}, text={self.text!r}, "
            f"token_ids={self.token_ids}, cumulative_logprob={self.cumulative_logprob}, "
            f"logprobs={self.logprobs}, finish_reason={self.finish_reason}, "
            f"stop_reason={self.stop_reason!r}{error})"
        )


class RequestOutput:
    """The result of one prompt.

    ``request_id`` is a string that counts over the calls of an ``LLM``; ``prompt`` is the text (for
    ``chat``, the rendered template), None when only token ids were given. ``num_cached_tokens`` is
    the number of prompt tokens that the prefix cache supplied. ``prompt_logprobs`` has an entry for
    each prompt token, None for the first. ``prompt_index`` is the prompt's place among those of its
    call, where results may come in another order.
    """

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int] | None,
        prompt_logprobs: Any,
        outputs: list[CompletionOutput],
        finished: bool,
        metrics: RequestStateStats | None = None,
        lora_request: Any = None,
        encoder_prompt: str | None = None,
        encoder_prompt_token_ids: list[int] | None = None,
        num_cached_tokens: int | None = None,
        *,
        num_cache_creation_tokens: int | None = None,
        prompt_token_id_logprobs: Any = None,
        kv_transfer_params: Any = None,
        ec_transfer_params: Any = None,
        prompt_index: int | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs:
            warnings.warn(f"RequestOutput: ignoring arguments {sorted(kwargs)}", stacklevel=2)
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.prompt_logprobs = prompt_logprobs
        self.outputs = outputs
        self.finished = finished
        self.metrics = metrics
        self.lora_request = lora_request
        self.encoder_prompt = encoder_prompt
        self.encoder_prompt_token_ids = encoder_prompt_token_ids
        self.num_cached_tokens = num_cached_tokens
        self.num_cache_creation_tokens = num_cache_creation_tokens
        self.prompt_token_id_logprobs = prompt_token_id_logprobs
        self.kv_transfer_params = kv_transfer_params
        self.ec_transfer_params = ec_transfer_params
        self.prompt_index = prompt_index

    def add(self, next_output: RequestOutput, aggregate: bool) -> None:
        """Merges a later output of the same request into this one.

        With ``aggregate`` texts and tokens are appended, without it samples are replaced.
        """
        self.finished |= next_output.finished
        self.metrics = next_output.metrics or self.metrics
        mine = {output.index: i for i, output in enumerate(self.outputs)}
        for theirs in next_output.outputs:
            position = mine.get(theirs.index)
            if position is None:
                self.outputs.append(theirs)
            elif aggregate:
                _append(self.outputs[position], theirs)
            else:
                self.outputs[position] = theirs

    def __repr__(self) -> str:
        return (
            f"RequestOutput(request_id={self.request_id}, prompt={self.prompt!r}, "
            f"prompt_token_ids={self.prompt_token_ids}, "
            f"prompt_logprobs={self.prompt_logprobs}, outputs={self.outputs}, "
            f"finished={self.finished}, metrics={self.metrics}, "
            f"lora_request={self.lora_request}, num_cached_tokens={self.num_cached_tokens})"
        )


def _append(mine: CompletionOutput, theirs: CompletionOutput) -> None:
    mine.text += theirs.text
    mine.token_ids = [*mine.token_ids, *theirs.token_ids]
    if theirs.logprobs is not None:
        together = theirs.logprobs[:0] if mine.logprobs is None else mine.logprobs[:]
        together.extend(theirs.logprobs)
        mine.logprobs = together
    mine.cumulative_logprob = theirs.cumulative_logprob
    mine.finish_reason = theirs.finish_reason
    mine.stop_reason = theirs.stop_reason
    mine.error = theirs.error


def failed_outputs(outputs: Sequence[RequestOutput]) -> list[tuple[RequestOutput, str]]:
    """The outputs with a sample that ended in an error, with that error's text."""
    return [
        (output, sample.error or "unknown error")
        for output in outputs
        for sample in output.outputs
        if sample.finish_reason == "error"
    ]
