"""OfflineGeneration: how LLM generates for prompts, in all the ways to wait for it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from octavo.beam_search import (
    BeamSearchOutput,
    BeamSearchParams,
    RequestParams,
    beam_search_outputs,
)
from octavo.engine_args import EngineArgs
from octavo.enqueue import EnqueuedWork
from octavo.generate_iter import generate_iter, stream
from octavo.inputs import PromptType
from octavo.model_handle import ModelHandle
from octavo.outputs import RequestOutput
from octavo.progress import ProgressBar, UseTqdm, with_progress
from octavo.request import RefusedPrompt
from octavo.submission import (
    PromptAndParams,
    RequestCounter,
    Submission,
    beam_pairs,
    check_length,
    check_on_error,
    list_prompts,
    old_prompts,
    params_of_each,
    parse_all,
    refuse,
    warn_of_errors,
)

Params = RequestParams | Sequence[RequestParams] | None


class OfflineGeneration(ModelHandle):
    """Generates for prompts; see ``LLM``."""

    def __init__(self, args: EngineArgs, name: str) -> None:
        super().__init__(args, name)
        self.request_counter = RequestCounter()
        self._enqueued = EnqueuedWork(self._core)

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType] | None = None,
        sampling_params: Params = None,
        *,
        use_tqdm: UseTqdm = True,
        lora_request: Any = None,
        priority: int | Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Any = None,
        prompt_token_ids: Any = None,
        on_error: str = "raise",
    ) -> list[RequestOutput]:
        """Generates for each prompt; the results are in the order of the prompts.

        A request that ends by an error while it runs (a NaN in the logits, say) is a result with
        ``finish_reason="error"`` and a warning, whatever ``on_error`` is.

        Args:
            prompts: one prompt or a sequence: text, a list of token ids, TextPrompt, TokensPrompt.
            sampling_params: one for all prompts, or one for each; None takes the model's defaults.
                With BeamSearchParams the result's ``outputs`` are the beams, best first.
            use_tqdm: show progress bars; a callable is used in the place of ``tqdm``.
            lora_request, mm_processor_kwargs: must be None in this version.
            priority: accepted for compatibility; requests are served in their order.
            tokenization_kwargs: ``add_special_tokens``, ``truncate_prompt_tokens`` (-1: as many as
                the model takes) and ``truncation_side`` for prompts of text.
            prompt_token_ids: an older spelling of ``prompts``, one or a list.
            on_error: "raise", or "return" to get a prompt that is refused as a result with
                ``finish_reason="error"``.

        Raises:
            ValidationError: a prompt or a parameter is out of range. Then all prompts of the call
                are aborted, and the LLM stays usable.
            TypeError: something is not a prompt, or not a SamplingParams.
        """
        refuse("lora_request", lora_request)
        refuse("mm_processor_kwargs", mm_processor_kwargs)
        self._check_ready()
        check_on_error(on_error)
        given = list_prompts(old_prompts(prompts, prompt_token_ids))
        parsed = parse_all(given, on_error)
        check_length(len(parsed), priority, "priority")
        params = params_of_each(self._core, len(parsed), sampling_params)
        pairs = list(zip(parsed, params, strict=True))
        return self._generate(pairs, use_tqdm, on_error, tokenization_kwargs)

    def _generate(
        self,
        pairs: list[PromptAndParams],
        use_tqdm: UseTqdm,
        on_error: str,
        tokenization_kwargs: Mapping[str, Any] | None,
        most_open: int | None = None,
    ) -> list[RequestOutput]:
        if not pairs:
            return []
        results: list[Any] = [None] * len(pairs)
        served = []
        total = sum(params.n for _, params in pairs)
        bar = ProgressBar(use_tqdm, total, opened=False)
        with self._core.batch() as batch, bar:

            def rendering() -> Iterator[PromptAndParams]:
                yield from with_progress(pairs, use_tqdm, "Rendering prompts")
                bar.open()

            submission = Submission(
                self._core,
                batch,
                iter(self.request_counter.take(len(pairs))),
                on_error=on_error,
                tokenization_kwargs=tokenization_kwargs,
            )
            submission.check(pairs)
            for request in submission.run(rendering(), most_open):
                if request.finished:
                    submission.num_open -= 1
                    output = results[request.prompt_index] = request.output()
                    bar.update(output)
                    if not isinstance(request, RefusedPrompt):
                        served.append(output)
        warn_of_errors(served, stacklevel=4)
        return results

    def stream(
        self,
        prompts: PromptType | Sequence[PromptType],
        sampling_params: Params = None,
        *,
        on_error: str = "raise",
        lora_request: Any = None,
        priority: int | Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Any = None,
    ) -> Generator[RequestOutput, None, None]:
        """Generates for each prompt, giving what is new as it comes.

        Each output is of one sample: ``outputs[0]`` has its ``index`` and its new ``text``,
        ``token_ids`` and ``logprobs``; ``prompt_index`` is the prompt's place in ``prompts``, and
        ``finished`` says that it is the prompt's last. The texts of a sample add up to the text
        that ``generate`` gives. ``SamplingParams.stream_interval`` makes outputs fewer. Work begins
        with the first ``next``; closing the iterator aborts it.

        With BeamSearchParams an output holds the whole best beam so far, which may be another each
        time, and the prompt's last has all beams.

        The arguments and errors are those of ``generate``.
        """
        refuse("lora_request", lora_request)
        refuse("mm_processor_kwargs", mm_processor_kwargs)
        self._check_ready()
        check_on_error(on_error)
        parsed = parse_all(list_prompts(prompts), on_error)
        check_length(len(parsed), priority, "priority")
        params = params_of_each(self._core, len(parsed), sampling_params)
        pairs = list(zip(parsed, params, strict=True))
        return stream(self._core, pairs, self.request_counter, on_error, tokenization_kwargs)

    def generate_iter(
        self,
        prompts: Iterable[PromptType],
        sampling_params: RequestParams | Iterable[RequestParams] | None = None,
        *,
        in_order: bool = False,
        max_in_flight: int | None = None,
        on_error: str = "raise",
        use_tqdm: UseTqdm = False,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Any = None,
    ) -> Generator[RequestOutput, None, None]:
        """Generates for the prompts of any iterable, endless ones too, in bounded memory.

        Prompts are pulled as there is room for them; each result comes when it is finished, its
        ``prompt_index`` being the prompt's place in the iterable. Closing the iterator aborts what
        is in flight, and so does an exception of the iterable, which is passed on.

        Args:
            prompts: any iterable of prompts, pulled by the caller's thread between results.
            sampling_params: one for all, or an iterable with one for each; None takes the model's
                defaults.
            in_order: give the results in the order of the prompts. Those that are finished early
                wait for their turn, and count as in flight.
            max_in_flight: prompts at work at once, by default twice ``max_num_seqs``, at least 64.
            use_tqdm: show a progress bar.

        The other arguments and errors are those of ``generate``. Raises also ValidationError when
        there are fewer parameters than prompts.
        """
        refuse("lora_request", lora_request)
        refuse("mm_processor_kwargs", mm_processor_kwargs)
        self._check_ready()
        return generate_iter(
            self._core,
            self.request_counter,
            prompts,
            sampling_params,
            in_order=in_order,
            max_in_flight=max_in_flight,
            on_error=on_error,
            use_tqdm=use_tqdm,
            tokenization_kwargs=tokenization_kwargs,
        )

    def beam_search(
        self,
        prompts: PromptType | Sequence[PromptType],
        params: BeamSearchParams | Sequence[BeamSearchParams],
        lora_request: Any = None,
        use_tqdm: UseTqdm = False,
        concurrency_limit: int | None = None,
        priority: int | Sequence[int] | None = None,
    ) -> list[BeamSearchOutput]:
        """The most probable continuations of each prompt, in the order of the prompts.

        ``generate`` takes BeamSearchParams too; there texts are without the prompts.

        Args:
            params: one for all prompts, or one for each.
            concurrency_limit: prompts that are searched at once; None is all.

        The others are those of ``generate``, and so are the errors. Raises also ValidationError
        when there is no prompt.
        """
        refuse("lora_request", lora_request)
        self._check_ready()
        pairs = beam_pairs(self._core, prompts, params, priority, concurrency_limit)
        outputs = self._generate(pairs, use_tqdm, "raise", None, concurrency_limit)
        searches = [params for _, params in pairs]
        return beam_search_outputs(outputs, searches, self._core.tokenizer)

    # Work that goes on while its caller does other things.

    def enqueue(
        self,
        prompts: PromptType | Sequence[PromptType],
        sampling_params: Params = None,
        lora_request: Any = None,
        priority: int | Sequence[int] | None = None,
        use_tqdm: UseTqdm = True,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Any = None,
    ) -> list[str]:
        """Starts to generate for each prompt, and returns the requests' ids at once.

        ``wait_for_completion`` gives the results. Stop strings are looked for there: until then a
        request goes on as if it had none. The arguments and errors are those of ``generate``.
        """
        refuse("lora_request", lora_request)
        refuse("mm_processor_kwargs", mm_processor_kwargs)
        self._check_ready()
        parsed = parse_all(list_prompts(prompts), "raise")
        check_length(len(parsed), priority, "priority")
        params = params_of_each(self._core, len(parsed), sampling_params)
        pairs = list(zip(parsed, params, strict=True))
        rendering = with_progress(pairs, use_tqdm, "Rendering prompts")
        request_ids = iter(self.request_counter.take(len(pairs)))
        return self._enqueued.add(rendering, request_ids, tokenization_kwargs)

    def wait_for_completion(
        self, output_type: Any = None, *, use_tqdm: UseTqdm = True
    ) -> list[RequestOutput]:
        """The results of all that was enqueued since the last call, in the order of its ids.

        An interrupt aborts what is in flight. ``output_type`` is None or RequestOutput.
        """
        if output_type not in (None, RequestOutput):
            raise TypeError(f"output_type must be None or RequestOutput, got {output_type!r}")
        self._check_ready()
        outputs = self._enqueued.wait(use_tqdm)
        warn_of_errors(outputs, stacklevel=3)
        return outputs

    def abort(self, request_id: str | Iterable[str]) -> None:
        """Ends requests of calls in other threads or of ``enqueue``.

        Their callers get what there is, with ``finish_reason="abort"``; unknown ids are ignored.
        """
        self._core.thread()
        self._core.abort([request_id] if isinstance(request_id, str) else request_id)

    def __del__(self) -> None:
        enqueued = getattr(self, "_enqueued", None)  # none when the constructor has raised
        if enqueued is not None:
            enqueued.abort()  # what nobody can wait for any more
