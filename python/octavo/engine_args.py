"""EngineArgs: the arguments of LLM and AsyncLLM as a record; which of them go to the engine, and
which of vLLM's mean nothing here."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from octavo.errors import NotSupportedError, validation_error

_ANY = object()  # every value is fine: there is nothing that it could change here

# The arguments that mean something, with their defaults; LLM's constructor documents them.
_DEFAULTS: dict[str, Any] = {
    "tokenizer": None,
    "skip_tokenizer_init": False,
    "dtype": "auto",
    "quantization": None,
    "kv_cache_dtype": "auto",
    "device": "auto",
    "load_format": "auto",
    "seed": 0,
    "max_model_len": None,
    "max_num_seqs": None,
    "max_num_batched_tokens": None,
    "kv_cache_memory_bytes": None,
    "num_gpu_blocks_override": None,
    "gpu_memory_utilization": 0.9,
    "enable_prefix_caching": None,
    "enable_chunked_prefill": None,
    "max_logprobs": 20,
    "logprobs_mode": "raw_logprobs",
    "num_threads": None,
    "stream_interval": 1,
    "generation_config": "auto",
    "override_generation_config": None,
    "chat_template": None,
    "revision": None,
    "tokenizer_revision": None,
    "hf_token": None,
    "disable_log_stats": True,
}

_DTYPES = {"half": "float16", "float": "float32"}
_QUANTIZATIONS = ("auto", "gguf", "int8", "none")
_LOGPROBS_MODES = ("raw_logprobs", "processed_logprobs", "raw_logits", "processed_logits")
_LEN_UNITS = {"k": 1000, "m": 1000**2, "K": 1024, "M": 1024**2}

# Arguments of vLLM with the values that change nothing in Octavo.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "runner": ("auto", "generate"),
    "convert": ("auto", "none"),
    "tokenizer_mode": ("auto", "hf", "slow"),
    "trust_remote_code": (_ANY,),  # code of a model's repository is never run
    "allowed_local_media_path": ("", None),
    "allowed_media_domains": (None, []),
    "tensor_parallel_size": (1,),
    "pipeline_parallel_size": (1,),
    "data_parallel_size": (1,),
    "decode_context_parallel_size": (1,),
    "prefill_context_parallel_size": (1,),
    "enable_expert_parallel": (False,),
    "distributed_executor_backend": (None, "uni", "mp"),
    "quantization_config": (None, {}),
    "cpu_offload_gb": (0,),
    "offload_group_size": (0,),
    "offload_num_in_group": (1,),
    "offload_prefetch_step": (1,),
    "offload_params": (None,),
    "enforce_eager": (_ANY,),
    "disable_custom_all_reduce": (_ANY,),
    "hf_overrides": (None, {}),
    "mm_processor_kwargs": (None, {}),
    "limit_mm_per_prompt": (None, {}),
    "pooler_config": (None,),
    "structured_outputs_config": (None, {}, {"backend": "auto"}, {"backend": "xgrammar"}),
    "profiler_config": (None,),
    "attention_config": (None,),
    "compilation_config": (_ANY,),
    "optimization_level": (_ANY,),
    "performance_mode": (None, "balanced"),
    "logits_processors": (None, []),
    "spec_method": (None,),
    "spec_model": (None,),
    "spec_tokens": (None,),
    "speculative_config": (None,),
    "enable_return_routed_experts": (False,),
    "return_sampling_mask": (False,),
    "enable_lora": (False,),
    "max_loras": (_ANY,),
    "max_lora_rank": (_ANY,),
    "max_cpu_loras": (_ANY,),
    "enable_prompt_embeds": (False,),
    "enable_mm_embeds": (False,),
    "enable_sleep_mode": (_ANY,),  # sleeping needs no preparation
    "enable_log_requests": (False,),
    "disable_log_requests": (_ANY,),
    "max_num_scheduled_tokens": (None,),
    "max_num_active_seqs": (None,),
    "max_num_queued_reqs": (None,),
    "max_num_queued_tokens": (None,),
    "prefix_caching_hash_algo": (_ANY,),
    "block_size": (None, 16),
    "scheduling_policy": ("fcfs",),
    "long_prefill_token_threshold": (0,),
    "scheduler_reserve_full_isl": (_ANY,),
    "watermark": (0, 0.0),
    "prefill_schedule_interval": (1,),
    "async_scheduling": (_ANY,),
    "model_impl": ("auto", "vllm"),
    "kv_transfer_config": (None,),
    "served_model_name": (_ANY,),
    "shutdown_timeout": (_ANY,),
    "download_dir": (None,),
}


# Arguments of older versions of vLLM that old programs still pass.
_REMOVED = (
    "swap_space",
    "max_seq_len_to_capture",
    "use_v2_block_manager",
    "num_scheduler_steps",
    "guided_decoding_backend",
    "max_context_len_to_capture",
)


class EngineArgs:
    """The arguments of an ``LLM`` or ``AsyncLLM`` as attributes: ``vars(args)`` are its keywords.

    Raises:
        TypeError: a name is neither Octavo's nor vLLM's.
        NotSupportedError: a value asks for something that Octavo does not do.
    """

    def __init__(self, model: Any, **options: Any) -> None:
        others = {name: value for name, value in options.items() if name not in _DEFAULTS}
        for name in _REMOVED:
            if name in others:
                warnings.warn(
                    f"{name} has no effect any more; leave it out", DeprecationWarning, stacklevel=3
                )
                del others[name]
        if "task" in others:
            _check_task(others.pop("task"))
        check_neutral(others)
        self.model = model
        self.__dict__.update({**_DEFAULTS, **{k: options[k] for k in _DEFAULTS if k in options}})
        self.__dict__.update(others)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EngineArgs) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # its attributes may change

    def __repr__(self) -> str:
        given = {
            name: value
            for name, value in vars(self).items()
            if name not in _DEFAULTS or value != _DEFAULTS[name]
        }
        if given.get("hf_token"):
            given["hf_token"] = "..."
        shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
        return f"{type(self).__name__}({shown})"


class AsyncEngineArgs(EngineArgs):
    """The arguments of an ``AsyncLLM``: the same."""


def check_neutral(kwargs: Mapping[str, Any]) -> None:
    """Accepts vLLM's arguments that mean nothing here, at values that ask for nothing.

    Raises TypeError for a name that vLLM does not have either, and NotSupportedError for a value
    that asks for something Octavo does not do.
    """
    for name, value in kwargs.items():
        if name not in _NEUTRAL:
            raise TypeError(f"LLM.__init__() got an unexpected keyword argument {name!r}")
        if not any(allowed is _ANY or _equal(value, allowed) for allowed in _NEUTRAL[name]):
            expected = " or ".join(repr(allowed) for allowed in _NEUTRAL[name])
            raise NotSupportedError(
                f"{name}={value!r} is not supported by this version of Octavo; expected {expected}"
            )


def check_stream_interval(value: Any) -> int:
    """The number of tokens that a streamed output has at the least. Raises ValidationError."""
    return _count("stream_interval", {"stream_interval": 1 if value is None else value}, least=1)


def _check_task(task: Any) -> None:
    if task not in (None, "auto", "generate"):
        raise NotSupportedError(
            f"task={task!r} is not supported by this version of Octavo; expected 'generate'"
        )
    warnings.warn(
        "task has no effect any more; leave it out, or use runner='generate'",
        DeprecationWarning,
        stacklevel=4,
    )


def engine_kwargs(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``_core.Engine`` from those of LLM, None meaning "choose for me"."""
    kwargs: dict[str, Any] = {
        "device": str(options["device"]),
        "dtype": dtype_name(options["dtype"]),
        "quantization": _quantization(options["quantization"]),
        "kv_cache_dtype": dtype_name(options["kv_cache_dtype"]),
        "load_format": str(options["load_format"]),
        "max_model_len": _max_model_len(options["max_model_len"]),
        "kv_cache_memory_bytes": _count("kv_cache_memory_bytes", options, least=0),
        "num_kv_blocks": _count("num_gpu_blocks_override", options, least=0),
        "gpu_memory_utilization": _share("gpu_memory_utilization", options),
        "num_threads": _count("num_threads", options, least=0),
        "max_logprobs": _count("max_logprobs", options, least=-1),
        "logprobs_mode": _logprobs_mode(options["logprobs_mode"]),
        "seed": _seed(options["seed"]),
    }
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        if options[name] is not None:
            kwargs[name] = _count(name, options, least=1)
    for name in ("enable_prefix_caching", "enable_chunked_prefill"):
        if options[name] is not None:
            kwargs[name] = bool(options[name])
    return kwargs


def dtype_name(dtype: Any) -> str:
    """The engine's name of a dtype: "half" is float16; an object such as torch.float16 works."""
    name = str(dtype).removeprefix("torch.")
    return _DTYPES.get(name, name)


def _quantization(value: Any) -> str:
    name = "auto" if value is None else value
    if name not in _QUANTIZATIONS:
        raise NotSupportedError(
            f"quantization={value!r} is not supported by this version of Octavo; expected None, "
            f"{', '.join(repr(known) for known in _QUANTIZATIONS)}"
        )
    return str(name)


def _equal(value: Any, allowed: Any) -> bool:
    if allowed is None or isinstance(allowed, bool) or isinstance(value, bool):
        return value is allowed
    return isinstance(value, (int, float, str, list, dict, tuple)) and bool(value == allowed)


def _count(name: str, options: Mapping[str, Any], *, least: int) -> int:
    value = options[name]
    if value is None:
        return 0
    most = 2**63 - 1 if name.endswith(("bytes", "override", "len")) else 2**31 - 1
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise validation_error(
            f"{name} must be an integer from {least} to {most}, got {value!r}",
            parameter=name,
            value=value,
        )
    return value


def _share(name: str, options: Mapping[str, Any]) -> float:
    value = options[name]
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= 1:
        raise validation_error(
            f"{name} must be a number above 0 and at most 1, got {value!r}",
            parameter=name,
            value=value,
        )
    return float(value)


def _max_model_len(value: Any) -> int:
    if value in (None, -1, "auto"):
        return 0
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", value.strip())
        if match:
            value = int(float(match[1]) * _LEN_UNITS.get(match[2], 1))
    return _count("max_model_len", {"max_model_len": value}, least=1)


def _logprobs_mode(value: Any) -> str:
    name = getattr(value, "value", value)  # vLLM's own is a string, or an enumeration of them
    if name not in _LOGPROBS_MODES:
        raise validation_error(
            f"logprobs_mode must be one of {', '.join(_LOGPROBS_MODES)}, got {value!r}",
            parameter="logprobs_mode",
            value=value,
        )
    return str(name)


def _seed(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**64:
        raise validation_error(
            f"seed must be a 64-bit integer, got {value!r}", parameter="seed", value=value
        )
    return value % 2**64
