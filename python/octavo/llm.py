"""LLM: a model in this process, with vLLM's interface for offline use."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from octavo.beam_search import (
    BeamSearchOutput,
    BeamSearchParams,
    RequestParams,
    beam_search_outputs,
)
from octavo.engine_args import EngineArgs
from octavo.engine_view import EngineView, ModelConfig
from octavo.enqueue import EnqueuedWork
from octavo.errors import NotSupportedError
from octavo.generate_iter import generate_iter, stream
from octavo.inference_core import InferenceCore
from octavo.inputs import PromptType
from octavo.metrics import Metric
from octavo.outputs import RequestOutput
from octavo.progress import ProgressBar, UseTqdm, with_progress
from octavo.request import RefusedPrompt
from octavo.sampling_params import SamplingParams
from octavo.sleep import SleepControl
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
from octavo.tokenizer import Tokenizer

Params = RequestParams | Sequence[RequestParams] | None
_CHAT_OPTIONS = (
    "chat_template",
    "chat_template_content_format",
    "add_generation_prompt",
    "continue_final_message",
    "tools",
    "chat_template_kwargs",
)


class LLM:
    """Loads a model and generates with it, in this process and its threads.

    Several threads may call one LLM at once: their requests share its batch.

    Args:
        model: a directory with config.json and safetensors, a .gguf file, or a name on the Hugging
            Face hub.
        tokenizer: where the tokenizer is, by default with the model.
        skip_tokenizer_init: token ids in, token ids out.
        dtype: "auto", "float32", "bfloat16" or "float16" ("half"), of weights and KV cache.
        kv_cache_dtype: "auto" (as ``dtype``) or one of those.
        device: "auto", "cpu", or "ref" (the scalar reference).
        load_format: "auto", "safetensors", "gguf", or "dummy" for random weights.
        seed: for requests without a seed of their own.
        max_model_len: tokens of prompt and output, by default what the model was made for.
        max_num_seqs: sequences in one step, by default 256.
        max_num_batched_tokens: the token budget of one step, by default 4096.
        kv_cache_memory_bytes: memory for the KV cache.
        num_gpu_blocks_override: the KV cache's size in blocks of 16 tokens.
        enable_prefix_caching: share the KV cache of common beginnings, by default on.
        enable_chunked_prefill: compute long prompts over several steps, by default on.
        max_logprobs: the most log-probabilities a token that a request may ask for; -1: any number.
        logprobs_mode: "raw_logprobs" are the model's own, "processed_logprobs" those after
            penalties, biases, bans and temperature; "raw_logits" and "processed_logits" likewise.
        num_threads: by default the least of cgroup quota, affinity and physical cores.
        stream_interval: tokens of one streamed output, at the least; a request may ask for more.
        generation_config: "auto" takes sampling defaults from the model's generation_config.json,
            "vllm" or "none" does not, anything else is a directory that holds one.
        override_generation_config: values put over that file's.
        chat_template: a Jinja template, or the path of one, for ``chat``.
        revision, tokenizer_revision: branch, tag or commit on the hub.
        hf_token: an access token for the hub.
        disable_log_stats: accepted for compatibility; ``RequestOutput.metrics`` is always there.
        **kwargs: other arguments of vLLM, at values that ask for nothing that Octavo lacks; those
            that vLLM has removed, with a DeprecationWarning.

    Raises:
        ModelLoadError: the model's files are missing, malformed or of an unknown form.
        NotSupportedError: the architecture or an option is not in this version.
        OutOfMemoryError: weights and KV cache do not fit.
        ValidationError: an option is out of range.
        TypeError: an argument has an unknown name.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        tokenizer: str | os.PathLike[str] | None = None,
        skip_tokenizer_init: bool = False,
        dtype: Any = "auto",
        kv_cache_dtype: Any = "auto",
        device: str = "auto",
        load_format: str = "auto",
        seed: int | None = 0,
        max_model_len: int | str | None = None,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        kv_cache_memory_bytes: int | None = None,
        num_gpu_blocks_override: int | None = None,
        enable_prefix_caching: bool | None = None,
        enable_chunked_prefill: bool | None = None,
        max_logprobs: int = 20,
        logprobs_mode: str = "raw_logprobs",
        num_threads: int | None = None,
        stream_interval: int = 1,
        generation_config: str = "auto",
        override_generation_config: Mapping[str, Any] | None = None,
        chat_template: Path | str | None = None,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        hf_token: str | bool | None = None,
        disable_log_stats: bool = True,
        **kwargs: Any,
    ) -> None:
        named = {k: v for k, v in locals().items() if k not in ("self", "model", "kwargs")}
        core = self._core = InferenceCore(EngineArgs(model, **named, **kwargs), "LLM")
        self.model = core.model
        self.model_info = core.model_info
        self.max_model_len = core.max_model_len
        self.chat_template = core.chat_template
        self.llm_engine = EngineView(core)
        self.request_counter = RequestCounter()
        self._sleep = SleepControl(core)
        self._enqueued = EnqueuedWork(core)

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLM:
        """An LLM with these arguments."""
        return cls(**vars(engine_args))

    @property
    def model_config(self) -> ModelConfig:
        """What the model is, under vLLM's names."""
        return self.llm_engine.model_config

    # Generating.

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

    def chat(
        self,
        messages: Sequence[Any],
        sampling_params: Params = None,
        use_tqdm: UseTqdm = True,
        lora_request: Any = None,
        priority: int | Sequence[int] | None = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Any = None,
    ) -> list[RequestOutput]:
        """Generates the next message of one conversation, or of each of several.

        Args:
            messages: a list of messages such as ``{"role": "user", "content": "Hi"}``, or a list of
                such lists.
            chat_template: a Jinja template (not a path), or the name of one of the model's.
            chat_template_content_format: whether messages' contents reach the template as strings
                ("string") or as lists of parts ("openai"); "auto" looks at the template.
            add_generation_prompt: end the prompt where the assistant's message begins.
            continue_final_message: go on with the last message; needs add_generation_prompt=False.
            tools: functions that the model may call, as JSON schemas, for the template.
            chat_template_kwargs: variables for the template, ``documents`` among them; those that
                it does not use are dropped.

        The others are those of ``generate``. Raises also ChatTemplateResolutionError when neither
        the model nor the call has a template.
        """
        options = {name: value for name, value in locals().items() if name in _CHAT_OPTIONS}
        prompts = self._render_chat(messages, options)
        return self.generate(
            prompts,
            sampling_params,
            use_tqdm=use_tqdm,
            lora_request=lora_request,
            priority=priority,
            tokenization_kwargs=tokenization_kwargs,
            mm_processor_kwargs=mm_processor_kwargs,
        )

    def stream_chat(
        self,
        messages: Sequence[Any],
        sampling_params: Params = None,
        *,
        on_error: str = "raise",
        **chat_options: Any,
    ) -> Generator[RequestOutput, None, None]:
        """``stream`` for conversations. ``chat_options`` are those of ``chat``, from
        ``chat_template`` to ``chat_template_kwargs``."""
        prompts = self._render_chat(messages, chat_options)
        return self.stream(prompts, sampling_params, on_error=on_error)

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

    def enqueue_chat(
        self,
        messages: Sequence[Any],
        sampling_params: Params = None,
        use_tqdm: UseTqdm = True,
        lora_request: Any = None,
        priority: int | Sequence[int] | None = None,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Any = None,
    ) -> list[str]:
        """``enqueue`` for conversations; the arguments are those of ``chat``."""
        options = {name: value for name, value in locals().items() if name in _CHAT_OPTIONS}
        prompts = self._render_chat(messages, options)
        return self.enqueue(
            prompts,
            sampling_params,
            lora_request=lora_request,
            priority=priority,
            use_tqdm=use_tqdm,
            tokenization_kwargs=tokenization_kwargs,
            mm_processor_kwargs=mm_processor_kwargs,
        )

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

    # What there is to know.

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises ValidationError with ``skip_tokenizer_init``."""
        return self._core.need_tokenizer("get_tokenizer")

    def get_default_sampling_params(self) -> SamplingParams:
        """What ``generate`` takes when no SamplingParams are given."""
        return self._core.default_sampling_params()

    def get_world_size(self, include_dp: bool = True) -> int:
        """The number of devices: 1."""
        return 1

    def get_metrics(self, prefix: str = "vllm") -> list[Metric]:
        """The engine's figures: Counter, Gauge and Histogram of ``octavo.metrics``.

        Their names are vLLM's, such as "vllm:generation_tokens".
        """
        return self._core.metrics(prefix)

    def stats(self) -> dict[str, int]:
        """The engine's counters and gauges by name, as of the end of its last step."""
        return self._core.stats()

    # Memory.

    def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Forgets the cached prefixes of finished requests."""
        self._core.between_steps(lambda engine: engine.reset_prefix_cache())
        return True

    def reset_mm_cache(self) -> None:
        """Does nothing: there is no cache of images."""
        self._core.thread()

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        """Pauses the engine and gives memory back, until ``wake_up``.

        Args:
            level: 0 only pauses: what is submitted waits. 1 gives the KV cache back, 2 the weights
                too, which are then read again from the model's files; calls are refused meanwhile.
            mode: what becomes of requests in flight. "abort" ends them with
                ``finish_reason="abort"``, "wait" waits until none is left, those that come
                meanwhile too, "keep" lets them go on afterwards.
        """
        self._sleep.sleep(level, mode)

    def wake_up(self, tags: Iterable[str] | None = None) -> bool:
        """Takes memory again and goes on; returns whether all is awake.

        Args:
            tags: of "weights", "kv_cache" and "scheduling"; None is all. Scheduling goes on when
                the memory is back.

        Raises OutOfMemoryError when there is no memory; then it still sleeps.
        """
        return self._sleep.wake_up(tags)

    def is_sleeping(self) -> bool:
        """Whether ``sleep`` was called, and not all is awake again."""
        return self._sleep.sleeping

    def start_profile(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises NotSupportedError."""
        raise NotSupportedError("start_profile is not supported by this version of Octavo")

    def stop_profile(self) -> NoReturn:
        """Raises NotSupportedError."""
        raise NotSupportedError("stop_profile is not supported by this version of Octavo")

    # Its end.

    def close(self) -> None:
        """Gives the model's memory and threads back. A call in another thread ends with an error.

        May be called more than once; every other method raises OctavoError afterwards.
        """
        self._core.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        enqueued = getattr(self, "_enqueued", None)  # none when the constructor has raised
        if enqueued is not None:
            enqueued.abort()  # what nobody can wait for any more

    def __repr__(self) -> str:
        state = "closed" if self._core.closed else self.model_info.architecture
        return f"LLM(model={self.model!r}, {state})"

    def _check_ready(self) -> None:
        self._core.thread()
        self._sleep.check_memory()

    def _render_chat(self, messages: Sequence[Any], options: Mapping[str, Any]) -> list[Any]:
        """The prompts of conversations; ``options`` are those of ChatOptions."""
        from octavo.chat import ChatOptions, render_chat

        self._check_ready()
        tokenizer = self._core.need_tokenizer("chat")
        if options.get("chat_template") is None:
            options = {**options, "chat_template": self.chat_template}
        return list(render_chat(messages, tokenizer, ChatOptions(**options)))
