"""LLM: a model in this process, with vLLM's interface for offline use."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from octavo.engine_args import EngineArgs
from octavo.engine_view import EngineView, ModelConfig
from octavo.errors import NotSupportedError
from octavo.model_handle import CHAT_OPTIONS
from octavo.offline import OfflineGeneration, Params
from octavo.outputs import RequestOutput
from octavo.progress import UseTqdm


class LLM(OfflineGeneration):
    """Loads a model and generates with it, in this process and its threads.

    Several threads may call one LLM at once: their requests share its batch.

    Args:
        model: a directory with config.json and safetensors, a .gguf file, or a name on the Hugging
            Face hub.
        tokenizer: where the tokenizer is, by default with the model.
        skip_tokenizer_init: token ids in, token ids out.
        dtype: "auto", "float32", "bfloat16" or "float16" ("half"), of weights and KV cache.
        quantization: how the matrices of the layers are multiplied. "gguf" keeps the integers of a
            GGUF file as they are; "int8" quantizes all on load, with one scale a row; "none" makes
            them ``dtype``; None or "auto" is "gguf" where the file has integers and ``dtype`` is
            "auto", and else "none".
        kv_cache_dtype: "float32", "bfloat16", "float16", or "int8", with a scale for each vector
            of a head; "auto" is as ``dtype``, but bfloat16 where ``dtype`` is "auto" and the
            matrices are multiplied as integers.
        device: "auto" (a GPU where there is one, else the CPU), "cpu", "cuda", "cuda:1" (the second
            GPU), or "ref" (the scalar reference).
        load_format: "auto", "safetensors", "gguf", or "dummy" for random weights.
        seed: for requests without a seed of their own.
        max_model_len: tokens of prompt and output, by default what the model was made for.
        max_num_seqs: sequences in one step, by default 256.
        max_num_batched_tokens: the token budget of one step, by default 4096, on a GPU 8192, or
            16384 where it has 60 GiB free.
        kv_cache_memory_bytes: memory for the KV cache; on a GPU, by default what
            gpu_memory_utilization leaves.
        num_gpu_blocks_override: the KV cache's size in blocks of 16 tokens.
        gpu_memory_utilization: the share of a GPU's memory that is taken for weights, workspace and
            KV cache, of what is free at the start. It means nothing on a CPU.
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
        quantization: str | None = None,
        kv_cache_dtype: Any = "auto",
        device: str = "auto",
        load_format: str = "auto",
        seed: int | None = 0,
        max_model_len: int | str | None = None,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        kv_cache_memory_bytes: int | None = None,
        num_gpu_blocks_override: int | None = None,
        gpu_memory_utilization: float = 0.9,
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
        named = {
            k: v for k, v in locals().items() if k not in ("self", "model", "kwargs", "__class__")
        }
        super().__init__(EngineArgs(model, **named, **kwargs), "LLM")
        self.llm_engine = EngineView(self._core)

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLM:
        """An LLM with these arguments."""
        return cls(**vars(engine_args))

    @property
    def model_config(self) -> ModelConfig:
        """What the model is, under vLLM's names."""
        return self.llm_engine.model_config

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
        *,
        on_error: str = "raise",
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

            on_error: "raise", or "return" to get a conversation that is refused, by its template
                too, as a result with ``finish_reason="error"``.

        The others are those of ``generate``. Raises also ChatTemplateResolutionError when neither
        the model nor the call has a template.
        """
        options = {name: value for name, value in locals().items() if name in CHAT_OPTIONS}
        prompts = self._render_chat(messages, options, on_error)
        return self.generate(
            prompts,
            sampling_params,
            use_tqdm=use_tqdm,
            lora_request=lora_request,
            priority=priority,
            tokenization_kwargs=tokenization_kwargs,
            mm_processor_kwargs=mm_processor_kwargs,
            on_error=on_error,
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
        prompts = self._render_chat(messages, chat_options, on_error)
        return self.stream(prompts, sampling_params, on_error=on_error)

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
        options = {name: value for name, value in locals().items() if name in CHAT_OPTIONS}
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

    # The engine.

    def get_world_size(self, include_dp: bool = True) -> int:
        """The number of devices: 1."""
        return 1

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
