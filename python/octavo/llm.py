"""LLM: a model in this process, with vLLM's interface for offline use."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo import _core
from octavo.batch import Batch, Delta, EndTokens
from octavo.engine_args import check_neutral, engine_kwargs
from octavo.errors import NotSupportedError, OctavoError, ValidationError
from octavo.generation_config import GenerationConfig, parse_model_config
from octavo.hub import resolve_model
from octavo.inputs import ParsedPrompt, PromptType, parse_prompts
from octavo.logprobs import TokenTexts
from octavo.model_info import ModelInfo
from octavo.outputs import RequestOutput, failed_outputs
from octavo.progress import ProgressBar, with_progress
from octavo.prompts import PromptLimits, render_prompt
from octavo.sampling_params import SamplingParams
from octavo.token_rules import tokenize_bad_words
from octavo.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class _Job:
    """One prompt that is ready to be added."""

    text: str | None
    token_ids: list[int]
    cache_salt: str
    params: SamplingParams
    core_params: _core.SamplingParams


class LLM:
    """Loads a model and generates with it, in this process and its threads.

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
        generation_config: "auto" takes sampling defaults from the model's generation_config.json,
            "vllm" or "none" does not, anything else is a directory that holds one.
        override_generation_config: values put over that file's.
        chat_template: a Jinja template, or the path of one, for ``chat``.
        revision, tokenizer_revision: branch, tag or commit on the hub.
        hf_token: an access token for the hub.
        disable_log_stats: False fills in ``RequestOutput.metrics``.
        **kwargs: other arguments of vLLM, at values that ask for nothing that Octavo lacks.

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
        generation_config: str = "auto",
        override_generation_config: Mapping[str, Any] | None = None,
        chat_template: Path | str | None = None,
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        hf_token: str | bool | None = None,
        disable_log_stats: bool = True,
        **kwargs: Any,
    ) -> None:
        self._engine: _core.Engine | None = None
        self._lock = threading.RLock()
        self._closing = False
        self._pid = os.getpid()
        check_neutral(kwargs)
        options = engine_kwargs(locals())
        self.model = resolve_model(
            model, revision=revision, token=hf_token, weights=load_format != "dummy"
        )
        where = None if skip_tokenizer_init else self.model
        if tokenizer is not None and not skip_tokenizer_init:
            where = resolve_model(
                tokenizer, revision=tokenizer_revision, token=hf_token, weights=False
            )
        self._tokenizer = None if where is None else load_tokenizer(where)
        self._token_texts = None if self._tokenizer is None else TokenTexts(self._tokenizer)
        self.chat_template = _load_template(chat_template)
        self.request_counter = 0
        self._with_metrics = not disable_log_stats
        self._start(options, generation_config, override_generation_config)

    def _start(
        self,
        options: dict[str, Any],
        generation_config: str,
        override_generation_config: Mapping[str, Any] | None,
    ) -> None:
        """Makes the engine, and reads what depends on its model."""
        self._max_logprobs: int = options["max_logprobs"]
        self._engine = _core.Engine(model=self.model, **options)
        self.model_info = ModelInfo.of(self._engine.model_info)
        self.max_model_len = self.model_info.max_model_len
        self._generation_config = GenerationConfig(
            self.model,
            generation_config,
            override_generation_config,
            parse_model_config(self.model_info.config_json),
        )
        self._ends = self._end_tokens()

    def generate(
        self,
        prompts: PromptType | Sequence[PromptType],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool | Callable[..., Any] = True,
        lora_request: Any = None,
        priority: int | Sequence[int] | None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        mm_processor_kwargs: Any = None,
    ) -> list[RequestOutput]:
        """Generates for each prompt; the results are in the order of the prompts.

        Args:
            prompts: one prompt or a sequence: text, a list of token ids, TextPrompt, TokensPrompt.
            sampling_params: one for all prompts, or one for each; None takes the model's defaults.
            use_tqdm: show progress bars; a callable is used in the place of ``tqdm``.
            lora_request, mm_processor_kwargs: must be None in this version.
            priority: accepted for compatibility; requests are served in their order.
            tokenization_kwargs: ``add_special_tokens``, ``truncate_prompt_tokens`` (-1: as many as
                the model takes) and ``truncation_side`` for prompts of text.

        Raises:
            ValidationError: a prompt or a parameter is out of range. Then no prompt of the call
                is generated for, and the engine stays usable.
            TypeError: something is not a prompt, or not a SamplingParams.
        """
        _refuse("lora_request", lora_request)
        _refuse("mm_processor_kwargs", mm_processor_kwargs)
        self._alive()
        parsed = parse_prompts(prompts)
        _check_length(parsed, priority, "priority")
        params = self._broadcast(parsed, sampling_params)
        distinct = {id(param): param for param in params}
        core_params = {key: self._core_params(param) for key, param in distinct.items()}
        jobs = []
        pairs = list(zip(parsed, params, strict=True))
        for prompt, param in with_progress(pairs, use_tqdm, "Rendering prompts"):
            limits = self._limits(param)
            text, ids = render_prompt(prompt, self._tokenizer, limits, tokenization_kwargs or {})
            jobs.append(_Job(text, ids, prompt.cache_salt, param, core_params[id(param)]))
        return self._run(jobs, use_tqdm)

    def chat(
        self,
        messages: Sequence[Any],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool | Callable[..., Any] = True,
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
            tools, chat_template_kwargs: are given to the template.

        The others are those of ``generate``. Raises also ChatTemplateResolutionError when neither
        the model nor the call has a template.
        """
        from octavo.chat import ChatOptions, render_chat

        self._alive()
        if self._tokenizer is None:
            raise ValidationError("chat needs a tokenizer; expected skip_tokenizer_init=False")
        options = ChatOptions(
            chat_template=chat_template if chat_template is not None else self.chat_template,
            content_format=chat_template_content_format,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            template_kwargs=dict(chat_template_kwargs or {}),
        )
        prompts = render_chat(messages, self._tokenizer, options)
        return self.generate(
            prompts,
            sampling_params,
            use_tqdm=use_tqdm,
            lora_request=lora_request,
            priority=priority,
            tokenization_kwargs=tokenization_kwargs,
            mm_processor_kwargs=mm_processor_kwargs,
        )

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises ValidationError with ``skip_tokenizer_init``."""
        if self._tokenizer is None:
            raise ValidationError("get_tokenizer: expected an LLM with skip_tokenizer_init=False")
        return self._tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What ``generate`` takes when no SamplingParams are given."""
        return self._generation_config.default_sampling_params()

    def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Forgets the cached prefixes of finished requests."""
        self._alive().reset_prefix_cache()
        return True

    def stats(self) -> dict[str, int]:
        """The engine's counters and gauges by name."""
        return dict(self._alive().stats())

    def close(self) -> None:
        """Gives the model's memory and threads back. A call in another thread ends with an error.

        May be called more than once; every other method raises OctavoError afterwards.
        """
        self._closing = True
        with self._lock:
            self._engine = None

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_engine", None) is not None:
            self._engine = None

    def __repr__(self) -> str:
        state = "closed" if self._engine is None else self.model_info.architecture
        return f"LLM(model={self.model!r}, {state})"

    def _stream(self, prompt: ParsedPrompt, params: SamplingParams) -> Generator[Delta, None, None]:
        """The deltas of one prompt, as they come; closing the iterator aborts it."""
        text, ids = render_prompt(prompt, self._tokenizer, self._limits(params), {})
        job = _Job(text, ids, prompt.cache_salt, params, self._core_params(params))
        with self._lock, self._batch() as batch:
            self._add(batch, job)
            yield from batch.stream(self._check)

    def _run(self, jobs: list[_Job], use_tqdm: bool | Callable[..., Any]) -> list[RequestOutput]:
        if not jobs:
            return []
        with self._lock, self._batch() as batch:
            for job in jobs:
                self._add(batch, job)
            with ProgressBar(use_tqdm, sum(job.params.n for job in jobs)) as bar:
                batch.run(bar.update, self._check)
        outputs = [request.output(with_metrics=self._with_metrics) for request in batch.requests]
        for output, error in failed_outputs(outputs):
            warnings.warn(f"request {output.request_id} failed: {error}", stacklevel=3)
        return outputs

    def _add(self, batch: Batch, job: _Job) -> None:
        request_id = str(self.request_counter)
        self.request_counter += 1
        batch.add(request_id, job.text, job.token_ids, job.params, job.core_params, job.cache_salt)

    def _batch(self) -> Batch:
        return Batch(self._alive(), self._tokenizer, self._ends, self._token_texts)

    def _core_params(self, params: SamplingParams) -> _core.SamplingParams:
        """The engine's form of the parameters. Raises ValidationError unless they fit the model."""
        vocab_size = self.model_info.vocab_size
        params.check_vocabulary(vocab_size)
        params.check_max_logprobs(self._max_logprobs, vocab_size)
        bad_words = tokenize_bad_words(params.bad_words or (), self._tokenizer, vocab_size)
        return params.to_core(self._ends.others, bad_words)

    def _broadcast(
        self,
        prompts: Sequence[ParsedPrompt],
        params: SamplingParams | Sequence[SamplingParams] | None,
    ) -> list[SamplingParams]:
        if params is None:
            params = self.get_default_sampling_params()
        if isinstance(params, (list, tuple)):
            _check_length(prompts, params, "params")
            each = list(params)
        else:
            each = [params] * len(prompts)
            _check_params(params)
        for one in each:
            _check_params(one)
        return each

    def _limits(self, params: SamplingParams) -> PromptLimits:
        min_output = 0 if params.max_tokens == 0 else 1
        return PromptLimits(self.max_model_len, self.model_info.vocab_size, min_output)

    def _alive(self) -> _core.Engine:
        if os.getpid() != self._pid:
            raise OctavoError(
                f"LLM: created in process {self._pid} and used in its fork {os.getpid()}, where "
                "its threads do not exist; expected an LLM that this process created (or "
                "multiprocessing's 'spawn' start method)"
            )
        engine = self._engine
        if engine is None or self._closing:
            raise OctavoError("LLM: it is closed; expected an open one")
        return engine

    def _check(self) -> None:
        if self._closing:
            raise OctavoError("LLM: it was closed while it was generating")

    def _end_tokens(self) -> EndTokens:
        model_eos = self.model_info.eos_token_id
        ids = list(self._generation_config.eos_token_ids)
        primary = model_eos
        if self._tokenizer is not None:
            if self._tokenizer.eos_token_id is not None:
                primary = self._tokenizer.eos_token_id
            ids += self._tokenizer.extra_eos_token_ids
        everything = dict.fromkeys(ids if primary is None else [primary, *ids])
        vocabulary = range(self.model_info.vocab_size)
        others = tuple(i for i in everything if i != model_eos and i in vocabulary)
        return EndTokens(primary, others)


def _load_template(chat_template: Path | str | None) -> str | None:
    if chat_template is None:
        return None
    from octavo.chat_template import load_chat_template

    return load_chat_template(chat_template)


def _check_params(params: Any) -> None:
    if not isinstance(params, SamplingParams):
        raise TypeError(
            "params must be either SamplingParams or PoolingParams, "
            f"but got {type(params).__name__}"
        )


def _check_length(prompts: Sequence[Any], values: Any, name: str) -> None:
    if isinstance(values, (list, tuple)) and len(values) != len(prompts):
        raise ValidationError(
            f"The lengths of prompts ({len(prompts)}) and {name} ({len(values)}) must be the same."
        )


def _refuse(name: str, value: Any) -> None:
    if value is not None and value not in ([], {}):
        raise NotSupportedError(f"{name} is not supported by this version of Octavo; expected None")
