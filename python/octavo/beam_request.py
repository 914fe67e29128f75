"""BeamRequest: one prompt whose best continuations are searched, in the place of a Request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from octavo import _core
from octavo.beam_search import BeamSearchParams
from octavo.detokenizer import IncrementalDetokenizer
from octavo.outputs import CompletionOutput, RequestOutput
from octavo.request import Job, Request, TextRules
from octavo.sampling_params import RequestOutputKind


@dataclass
class _LiveText:
    """The text of the best beam so far; it is begun anew when another beam becomes the best."""

    detokenizer: IncrementalDetokenizer | None
    token_ids: list[int] = field(default_factory=list)


class BeamRequest(Request):
    """One search in flight. ``take`` gives the best beam so far, and all beams at the end.

    Args:
        request_id, job, rules, interval: as for Request.
        kind: FINAL_ONLY gives nothing before the end.
    """

    def __init__(
        self,
        request_id: str,
        job: Job,
        rules: TextRules,
        kind: RequestOutputKind = RequestOutputKind.FINAL_ONLY,
        interval: int = 1,
    ) -> None:
        super().__init__(request_id, job, rules, kind, interval)
        assert isinstance(job.params, BeamSearchParams)
        self._search = job.params
        self._num_running = 1  # the search
        self._best: _core.Beam | None = None  # while it runs
        self._results: list[CompletionOutput] = []
        self._num_shown = 0  # tokens of the best beam that was shown last
        self._live: _LiveText | None = None

    def advance(self, output: _core.RequestOutput) -> bool:
        """Takes what the engine says of the search; it always knows by itself when that ends."""
        if self.finished:
            return False
        self.num_cached_tokens = output.num_cached_tokens
        self._note_times(output)
        beams = output.beams
        if output.request_finished and beams:
            self._results = [self._result(i, beam) for i, beam in enumerate(beams)]
            self.stats.num_generation_tokens = sum(len(beam.token_ids) for beam in self._results)
            self._num_running = 0
        elif output.finish_reason is not None:
            self.end(output.finish_reason, output.error or None)
        elif beams:
            self._best = beams[0]
        return False

    def end(self, finish_reason: str, error: str | None = None) -> None:
        """Ends the search; the best beam so far is kept, where it is known."""
        if not self.finished:
            best = self._snapshot()
            best.finish_reason, best.error = finish_reason, error
            self._results = [best]
            self._num_running = 0

    def take(self) -> list[RequestOutput]:
        """The results when there are any; before, unless ``kind`` is FINAL_ONLY, the best beam."""
        if self.finished:
            return [self.output()]
        if self._kind == RequestOutputKind.FINAL_ONLY or self._best is None:
            return []
        length = len(self._best.token_ids)
        if length - self._num_shown < (self._interval if self._num_shown else 1):
            return []
        self._num_shown = length
        return [self._output([self._snapshot()], None, finished=False)]

    def output(self) -> RequestOutput:
        """The request with its beams, best first."""
        shown = self._results if self.finished else [self._snapshot()]
        return self._output(shown, None, finished=self.finished)

    def _snapshot(self) -> CompletionOutput:
        """The best beam so far."""
        if self._best is None:
            return CompletionOutput(0, "", [])
        token_ids = list(self._best.token_ids)
        live = self._live
        if live is None or token_ids[: len(live.token_ids)] != live.token_ids:
            live = self._live = _LiveText(self._detokenizer())
        text = ""
        if live.detokenizer is not None:
            live.detokenizer.feed(token_ids[len(live.token_ids) :])
            text = live.detokenizer.text
        live.token_ids = token_ids
        return CompletionOutput(0, text, list(token_ids), self._best.logprob)

    def _result(self, index: int, beam: _core.Beam) -> CompletionOutput:
        token_ids = list(beam.token_ids)
        by_token = self._ends_by_token(beam)
        text, stop_reason = self._text(token_ids, by_token)
        stopped = stop_reason is not None
        if not stopped and beam.stop_index >= 0:
            stop_reason = (self._search.stop or ())[beam.stop_index]
        elif not stopped and by_token:
            is_eos = token_ids[-1] == self._rules.ends.primary and not self._search.ignore_eos
            stop_reason = None if is_eos else token_ids[-1]
        return CompletionOutput(
            index=index,
            text=text,
            token_ids=token_ids,
            cumulative_logprob=beam.logprob,
            logprobs=self._logprobs_of(beam, token_ids),
            finish_reason="stop" if stopped else beam.finish_reason,
            stop_reason=stop_reason,
        )

    def _ends_by_token(self, beam: _core.Beam) -> bool:
        """Whether the last token has ended the beam. None has where a structure is complete."""
        if beam.finish_reason != "stop" or beam.stop_index >= 0:
            return False
        last = beam.token_ids[-1:]
        return beam.stop_token_id is not None or any(i in self._rules.ends for i in last)

    def _text(self, token_ids: list[int], by_token: bool) -> tuple[str, int | str | None]:
        """A whole text, and the stop string that has cut it."""
        detokenizer = self._detokenizer()
        if detokenizer is None:
            return "", None
        keeps_end = not by_token or self._search.include_stop_str_in_output
        detokenizer.feed(token_ids if keeps_end else token_ids[:-1])
        detokenizer.finish()
        return detokenizer.text, detokenizer.stop_string

    def _logprobs_of(self, beam: _core.Beam, token_ids: list[int]) -> Any:
        """Each token's first, and then the others that it was chosen from."""
        builder = self._logprobs()
        if builder is None:
            return None
        for token_id, (ids, logprobs, ranks) in zip(token_ids, beam.logprobs, strict=True):
            at = ids.index(token_id)
            builder.add([token_id, *ids], [logprobs[at], *logprobs], [ranks[at], *ranks])
        return builder.positions
