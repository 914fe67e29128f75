"""Batch: drives the engine for the requests of one call, and makes their outputs.

The thread that calls ``run`` steps the engine. A batch is a context manager that owns its requests:
whatever ends it early, a KeyboardInterrupt too, aborts those that are still in flight, so that the
engine stays usable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from octavo import _core
from octavo.detokenizer import IncrementalDetokenizer
from octavo.logprobs import LogprobsBuilder, TokenTexts
from octavo.outputs import CompletionOutput, RequestOutput, RequestStateStats
from octavo.sampling_params import SamplingParams
from octavo.tokenizer import Tokenizer


@dataclass(frozen=True)
class EndTokens:
    """What ends a text: the end-of-sequence id, reported as no stop reason, and other such ids."""

    primary: int | None
    others: tuple[int, ...] = ()


@dataclass
class Sample:
    """One sample of a request, as far as it has come."""

    index: int
    detokenizer: IncrementalDetokenizer | None
    logprobs: LogprobsBuilder | None = None
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: str | None = None

    def completion(self) -> CompletionOutput:
        """The sample as its caller sees it."""
        return CompletionOutput(
            index=self.index,
            text=self.detokenizer.text if self.detokenizer is not None else "",
            token_ids=list(self.token_ids),
            cumulative_logprob=None if self.logprobs is None else self.logprobs.cumulative,
            logprobs=None if self.logprobs is None else self.logprobs.positions,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            error=self.error,
        )


@dataclass
class Request:
    """One prompt in flight."""

    request_id: str
    engine_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    samples: list[Sample]
    stats: RequestStateStats
    num_cached_tokens: int = 0
    prompt_logprobs: LogprobsBuilder | None = None

    @property
    def finished(self) -> bool:
        """Whether every sample has ended."""
        return all(sample.finish_reason is not None for sample in self.samples)

    def output(self, *, with_metrics: bool = False) -> RequestOutput:
        """The request as its caller sees it."""
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.prompt,
            prompt_token_ids=self.prompt_token_ids,
            prompt_logprobs=(
                None if self.prompt_logprobs is None else self.prompt_logprobs.positions
            ),
            outputs=[sample.completion() for sample in self.samples],
            finished=self.finished,
            metrics=self.stats if with_metrics else None,
            num_cached_tokens=self.num_cached_tokens,
        )


@dataclass(frozen=True)
class Delta:
    """New text and tokens of one sample, from one step."""

    request: Request
    sample: Sample
    text: str
    num_tokens: int


class Batch:
    """The requests of one call.

    Args:
        engine: the engine to step; no other thread may step it meanwhile.
        tokenizer: makes the texts; None leaves them empty.
        ends: the tokens that end a text.
        token_texts: the texts of single tokens, for log-probabilities; None leaves them out.
    """

    def __init__(
        self,
        engine: _core.Engine,
        tokenizer: Tokenizer | None,
        ends: EndTokens,
        token_texts: TokenTexts | None = None,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._ends = ends
        self._token_texts = token_texts
        self._live: dict[int, Request] = {}
        self._owned: set[int] = set()  # ids in flight, from the moment that the engine has them
        self._finished: list[Request] = []
        self.requests: list[Request] = []

    def add(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int],
        params: SamplingParams,
        core_params: _core.SamplingParams,
        cache_salt: str = "",
    ) -> Request:
        """Queues a prompt; ``core_params`` are the engine's form of ``params``.

        Raises ValidationError, changing nothing.
        """
        stats = RequestStateStats(arrival_time=time.time(), queued_ts=time.monotonic())
        engine_id = self._engine.add_request(prompt_token_ids, core_params, cache_salt, self._owned)
        samples = [
            Sample(
                index,
                self._detokenizer(params, prompt_token_ids),
                self._logprobs(params) if params.wants_logprobs else None,
            )
            for index in range(params.n)
        ]
        request = Request(request_id, engine_id, prompt, prompt_token_ids, params, samples, stats)
        if params.prompt_logprobs is not None:
            request.prompt_logprobs = self._logprobs(params)
            request.prompt_logprobs.add_none()  # nothing comes before the first token
        self._live[engine_id] = request
        self.requests.append(request)
        return request

    @property
    def unfinished(self) -> bool:
        """Whether a request is still in flight."""
        return bool(self._live)

    def run(self, on_finished: Callable[[Request], None], check: Callable[[], None]) -> None:
        """Steps until every request has ended; ``check`` runs before each step and may raise."""
        while self._live:
            check()
            self.step()
            for request in self.take_finished():
                on_finished(request)

    def stream(self, check: Callable[[], None]) -> Iterator[Delta]:
        """Like ``run``, giving each sample's new text as it comes."""
        while self._live:
            check()
            yield from self.step()

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.abort()

    def step(self) -> list[Delta]:
        """One step of the engine."""
        deltas = []
        touched: dict[int, bool] = {}
        for output in self._engine.step():
            request = self._live.get(output.request_id)
            if request is None:
                continue
            touched[output.request_id] = output.request_finished
            sample = request.samples[output.sample_index]
            request.num_cached_tokens = output.num_cached_tokens
            if request.prompt_logprobs is not None:
                for entry in output.prompt_logprobs:
                    request.prompt_logprobs.add(*entry)
            if sample.finish_reason is None:
                deltas.append(self._advance(request, sample, output))
        for engine_id, ended in touched.items():
            self._settle(engine_id, ended)
        return deltas

    def take_finished(self) -> list[Request]:
        """The requests that have ended since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def abort(self) -> None:
        """Ends the requests in flight; what they have produced so far is kept."""
        for engine_id in list(self._owned):
            self._engine.abort(engine_id)
        for request in self._live.values():
            for sample in request.samples:
                if sample.finish_reason is None:
                    self._end(sample, "abort", None)
        self._owned.clear()
        self._live.clear()

    def _detokenizer(
        self, params: SamplingParams, prompt_token_ids: Sequence[int]
    ) -> IncrementalDetokenizer | None:
        if self._tokenizer is None or not params.detokenize:
            return None
        skipped = self._tokenizer.skipped_ids if params.skip_special_tokens else frozenset()
        return IncrementalDetokenizer(
            self._tokenizer,
            skip_special_tokens=params.skip_special_tokens,
            stop=[params.stop] if isinstance(params.stop, str) else params.stop or (),
            include_stop_str_in_output=params.include_stop_str_in_output,
            min_tokens=params.min_tokens,
            continuation=any(i not in skipped for i in reversed(prompt_token_ids)),
        )

    def _logprobs(self, params: SamplingParams) -> LogprobsBuilder:
        texts = self._token_texts if params.detokenize else None
        return LogprobsBuilder(flat=params.flat_logprobs, texts=texts)

    def _settle(self, engine_id: int, ended: bool) -> None:
        """Moves a request that has ended out of the live ones."""
        request = self._live[engine_id]
        if ended:  # then the engine will say no more about any sample
            for sample in request.samples:
                if sample.finish_reason is None:
                    self._end(sample, "error", "the engine ended the request without a reason")
        if request.finished:
            del self._live[engine_id]
            self._owned.discard(engine_id)
            self._finished.append(request)

    def _advance(self, request: Request, sample: Sample, output: _core.RequestOutput) -> Delta:
        new_ids = list(output.new_token_ids)
        self._note_time(request, len(new_ids))
        before = len(sample.token_ids)
        sample.token_ids += new_ids
        text = self._decode(request, sample, output, new_ids)
        detokenizer = sample.detokenizer
        if detokenizer is not None and detokenizer.stopped:
            del sample.token_ids[detokenizer.num_tokens :]
            sample.finish_reason, sample.stop_reason = "stop", detokenizer.stop_string
            if output.finish_reason is None:
                self._engine.abort_sample(request.engine_id, sample.index)
        elif output.finish_reason is not None:
            sample.finish_reason = output.finish_reason
            sample.stop_reason = self._stop_reason(request, output, new_ids)
            sample.error = output.error or None
        kept = len(sample.token_ids) - before  # fewer than there are, where a stop string cut
        if sample.logprobs is not None:
            for entry in output.logprobs[:kept]:
                sample.logprobs.add(*entry)
        return Delta(request, sample, text, kept)

    def _decode(
        self,
        request: Request,
        sample: Sample,
        output: _core.RequestOutput,
        new_ids: list[int],
    ) -> str:
        detokenizer = sample.detokenizer
        if detokenizer is None:
            return ""
        # A token that ends the text is not part of it.
        by_token = output.finish_reason == "stop" and bool(new_ids)
        shown = new_ids
        if by_token and not request.params.include_stop_str_in_output:
            shown = new_ids[:-1]
        text = detokenizer.feed(shown)
        if output.finish_reason is not None and not detokenizer.stopped:
            text += detokenizer.finish()
        return text

    def _stop_reason(
        self, request: Request, output: _core.RequestOutput, new_ids: list[int]
    ) -> int | None:
        """The id of the token that ended a sample, None for the end-of-sequence token."""
        if output.finish_reason != "stop" or not new_ids:
            return None
        last = new_ids[-1]
        is_eos = last == self._ends.primary and not request.params.ignore_eos
        return None if is_eos else last

    def _end(self, sample: Sample, finish_reason: str, error: str | None) -> None:
        if sample.detokenizer is not None:
            sample.detokenizer.finish()
        sample.finish_reason, sample.error = finish_reason, error

    def _note_time(self, request: Request, num_tokens: int) -> None:
        if num_tokens == 0:
            return
        now = time.monotonic()
        stats = request.stats
        if stats.num_generation_tokens == 0:
            stats.first_token_ts = now
            stats.first_token_latency = now - stats.queued_ts
        stats.last_token_ts = now
        stats.num_generation_tokens += num_tokens
