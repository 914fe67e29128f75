"""Request: one prompt on its way through the engine, and what its caller gets to see of it.

A request belongs to the batch that added it, and is used by that batch's thread.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from octavo import _core
from octavo.beam_search import RequestParams
from octavo.detokenizer import IncrementalDetokenizer, continues_text
from octavo.logprobs import LogprobsBuilder, TokenTexts, prompt_logprobs_of
from octavo.outputs import CompletionOutput, RequestOutput, RequestStateStats
from octavo.sampling_params import RequestOutputKind
from octavo.tokenizer import Tokenizer

CoreParams = Union["_core.SamplingParams", "_core.BeamSearchParams"]


@dataclass(frozen=True)
class EndTokens:
    """What ends a text: the end-of-sequence id, reported as no stop reason, and other such ids.

    ``engine`` is the engine's own, where the tokenizer has another.
    """

    primary: int | None
    others: tuple[int, ...] = ()
    engine: int | None = None

    def __contains__(self, token_id: int) -> bool:
        return token_id in (self.primary, self.engine, *self.others)


@dataclass(frozen=True)
class TextRules:
    """What makes the texts of a model's outputs.

    Without a tokenizer the texts are empty; ``token_texts`` are those of single tokens, for
    log-probabilities.
    """

    tokenizer: Tokenizer | None
    ends: EndTokens
    token_texts: TokenTexts | None = None


@dataclass(frozen=True)
class Job:
    """A prompt that is ready to be added. ``core_params`` are the engine's form of ``params``."""

    prompt_index: int
    text: str | None
    token_ids: list[int]
    cache_salt: str
    params: RequestParams
    core_params: CoreParams


@dataclass
class Sample:
    """One sample of a request, as far as it has come."""

    index: int
    detokenizer: IncrementalDetokenizer | None
    logprobs: LogprobsBuilder | None
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: str | None = None
    num_shown: int = 0  # tokens that a delta or a snapshot has shown
    new_text: list[str] = field(default_factory=list)  # not shown by a delta yet

    def ready(self, interval: int) -> bool:
        """Whether enough is new to be shown: ``interval`` tokens, the first one, or the end."""
        new = len(self.token_ids) - self.num_shown
        return self.finish_reason is not None or new >= (interval if self.num_shown else 1)

    def end(self, finish_reason: str, error: str | None = None) -> None:
        """Ends the sample where it is; the text that was held back is shown."""
        if self.detokenizer is not None:
            self.new_text.append(self.detokenizer.finish())
        self.finish_reason, self.error = finish_reason, error

    def completion(self) -> CompletionOutput:
        """The sample so far."""
        self.num_shown = len(self.token_ids)
        text = self.detokenizer.text if self.detokenizer is not None else ""
        positions = None if self.logprobs is None else self.logprobs.positions
        return self._completion(text, list(self.token_ids), positions)

    def delta(self, empty_logprobs: LogprobsBuilder | None) -> CompletionOutput:
        """What is new since the last delta; ``empty_logprobs`` collects what comes next."""
        token_ids, self.num_shown = self.token_ids[self.num_shown :], len(self.token_ids)
        text, self.new_text = "".join(self.new_text), []
        positions = None
        if self.logprobs is not None and empty_logprobs is not None:
            positions = self.logprobs.positions
            empty_logprobs.cumulative = self.logprobs.cumulative
            self.logprobs = empty_logprobs
        return self._completion(text, token_ids, positions)

    def _completion(self, text: str, token_ids: list[int], logprobs: Any) -> CompletionOutput:
        return CompletionOutput(
            index=self.index,
            text=text,
            token_ids=token_ids,
            cumulative_logprob=None if self.logprobs is None else self.logprobs.cumulative,
            logprobs=logprobs,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            error=self.error,
        )


class Request:
    """One prompt in flight.

    Args:
        request_id: the caller's name of it.
        job: the prompt and its parameters.
        rules: what makes the texts.
        kind: what ``take`` gives: snapshots, deltas, or the whole at the end.
        interval: tokens between two outputs of a sample, at the least.
    """

    engine_id = -1  # set when the engine has it
    whole = False  # what the samples produce comes as one output for each

    def __init__(
        self,
        request_id: str,
        job: Job,
        rules: TextRules,
        kind: RequestOutputKind = RequestOutputKind.FINAL_ONLY,
        interval: int = 1,
    ) -> None:
        self.request_id = request_id
        self.prompt_index = job.prompt_index
        self.prompt = job.text
        self.prompt_token_ids = job.token_ids
        self.params = job.params
        self.stats = RequestStateStats(arrival_time=time.time())
        self.num_cached_tokens = 0
        self._rules = rules
        self._kind = kind
        self._interval = max(interval, job.params.stream_interval or 1)
        self._prompt_logprobs: Any = None
        self._awaits_prompt_logprobs = job.params.prompt_logprobs is not None
        # Made when the first output comes: a request may wait long.
        self._samples: list[Sample] = []
        self._num_running = job.params.n
        self._changed: dict[int, Sample] = {}  # since they were shown

    @property
    def finished(self) -> bool:
        """Whether every sample has ended."""
        return self._num_running == 0

    @property
    def samples(self) -> list[Sample]:
        """The samples by index."""
        if not self._samples:
            self._samples = [self._sample(index) for index in range(self.params.n)]
        return self._samples

    def advance(self, output: _core.RequestOutput) -> bool:
        """Takes what the engine says of one sample.

        Returns whether the text has ended before the engine knows: then the engine is to be told.
        """
        sample = self.samples[output.sample_index]
        self.num_cached_tokens = output.num_cached_tokens
        self._note_times(output)
        if self._awaits_prompt_logprobs:  # they come with the first output
            self._awaits_prompt_logprobs = False
            columns = output.prompt_logprobs
            if columns is not None or len(self.prompt_token_ids) == 1:  # a lone token has none
                self._prompt_logprobs = prompt_logprobs_of(
                    columns, self.params.flat_logprobs, self._token_texts()
                )
        return sample.finish_reason is None and self._extend(sample, output)

    def end(self, finish_reason: str, error: str | None = None) -> None:
        """Ends the samples that still run; what they have produced is kept."""
        for sample in self.samples:
            if sample.finish_reason is None:
                sample.end(finish_reason, error)
                self._changed[sample.index] = sample
        self._num_running = 0

    def take(self) -> list[RequestOutput]:
        """What is new since the last call, in the form of ``kind``; one output for each sample, or
        one for all at the end."""
        if self._kind == RequestOutputKind.FINAL_ONLY:
            return [self.output()] if self.finished else []
        ready = [sample for sample in self._changed.values() if sample.ready(self._interval)]
        outputs = []
        for sample in ready:
            del self._changed[sample.index]
            delta = self._kind == RequestOutputKind.DELTA
            shown = sample.delta(self._logprobs()) if delta else sample.completion()
            last = self.finished and not self._changed
            outputs.append(self._output([shown], self._prompt_logprobs, finished=last))
            if delta:
                self._prompt_logprobs = None  # they are in the first one
        return outputs

    def output(self) -> RequestOutput:
        """The request with all its samples."""
        shown = [sample.completion() for sample in self.samples]
        return self._output(shown, self._prompt_logprobs, finished=self.finished)

    def _output(
        self, shown: list[CompletionOutput], prompt_logprobs: Any, *, finished: bool
    ) -> RequestOutput:
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            prompt_logprobs=prompt_logprobs,
            outputs=shown,
            finished=finished,
            metrics=copy.copy(self.stats),
            num_cached_tokens=self.num_cached_tokens,
            prompt_index=self.prompt_index,
        )

    def _sample(self, index: int) -> Sample:
        return Sample(index, self._detokenizer(), self._logprobs())

    def _detokenizer(self) -> IncrementalDetokenizer | None:
        params, tokenizer = self.params, self._rules.tokenizer
        if tokenizer is None or not params.detokenize:
            return None
        skip = params.skip_special_tokens
        return IncrementalDetokenizer(
            tokenizer,
            skip_special_tokens=skip,
            stop=[params.stop] if isinstance(params.stop, str) else params.stop or (),
            include_stop_str_in_output=params.include_stop_str_in_output,
            min_tokens=params.min_tokens,
            continuation=continues_text(self.prompt_token_ids, tokenizer, skip),
        )

    def _logprobs(self) -> LogprobsBuilder | None:
        if not self.params.wants_logprobs:
            return None
        return LogprobsBuilder(flat=self.params.flat_logprobs, texts=self._token_texts())

    def _token_texts(self) -> TokenTexts | None:
        return self._rules.token_texts if self.params.detokenize else None

    def _extend(self, sample: Sample, output: _core.RequestOutput) -> bool:
        new_ids = output.new_token_ids
        before = len(sample.token_ids)
        sample.token_ids += new_ids
        self._decode(sample, output, new_ids)
        detokenizer = sample.detokenizer
        stopped = detokenizer is not None and detokenizer.stopped
        if detokenizer is not None and stopped:
            del sample.token_ids[detokenizer.num_tokens :]
            sample.finish_reason, sample.stop_reason = "stop", detokenizer.stop_string
        elif output.finish_reason is not None:
            sample.finish_reason = output.finish_reason
            sample.stop_reason = self._stop_reason(output, new_ids)
            sample.error = output.error or None
        kept = len(sample.token_ids) - before  # fewer than there are, where a stop string cut
        self.stats.num_generation_tokens += kept
        if sample.logprobs is not None:
            for entry in output.logprobs[:kept]:
                sample.logprobs.add(*entry)
        if sample.finish_reason is not None:
            self._num_running -= 1
        self._changed[sample.index] = sample
        return stopped and output.finish_reason is None

    def _decode(self, sample: Sample, output: _core.RequestOutput, new_ids: list[int]) -> None:
        detokenizer = sample.detokenizer
        if detokenizer is None:
            return
        # A token that ends the text is not part of it.
        by_token = output.finish_reason == "stop" and bool(new_ids)
        shown = new_ids
        if by_token and not self.params.include_stop_str_in_output:
            shown = new_ids[:-1]
        sample.new_text.append(detokenizer.feed(shown))
        if output.finish_reason is not None and not detokenizer.stopped:
            sample.new_text.append(detokenizer.finish())

    def _stop_reason(self, output: _core.RequestOutput, new_ids: Sequence[int]) -> int | str | None:
        """The id of the token that ended a sample, None for the end-of-sequence token."""
        if output.finish_reason == "repetition":
            return "repetition_detected"
        if output.finish_reason != "stop" or not new_ids:
            return None
        last = new_ids[-1]
        is_eos = last == self._rules.ends.primary and not self.params.ignore_eos
        return None if is_eos else last

    def _note_times(self, output: _core.RequestOutput) -> None:
        stats = self.stats
        queued, scheduled, first, last, num_preemptions = output.times
        stats.queued_ts, stats.scheduled_ts = queued, scheduled
        stats.first_token_ts, stats.last_token_ts = first, last
        stats.num_preemptions = num_preemptions
        if first:
            stats.first_token_latency = first - queued


class RefusedPrompt:
    """A prompt that could not be added, where its caller wants that as a result."""

    finished = True

    def __init__(
        self,
        request_id: str,
        prompt_index: int,
        prompt: tuple[str | None, list[int] | None],
        error: Exception,
    ) -> None:
        self.request_id = request_id
        self.prompt_index = prompt_index
        self._prompt = prompt
        self._error = str(error) or type(error).__name__

    def take(self) -> list[RequestOutput]:
        """As ``Request.take``."""
        return [self.output()]

    def output(self) -> RequestOutput:
        """As ``Request.output``: one sample that has ended with the error."""
        text, token_ids = self._prompt
        sample = CompletionOutput(0, "", [], finish_reason="error", error=self._error)
        return RequestOutput(
            request_id=self.request_id,
            prompt=text,
            prompt_token_ids=token_ids,
            prompt_logprobs=None,
            outputs=[sample],
            finished=True,
            num_cached_tokens=0,
            prompt_index=self.prompt_index,
        )
