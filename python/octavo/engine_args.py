"""The keyword arguments of LLM: which go to the engine, and which of vLLM's mean nothing here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from octavo.errors import NotSupportedError, validation_error

_ANY = object()  # every value is fine: there is nothing that it could change here

_DTYPES = {"half": "float16", "float": "float32"}
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
    "quantization": (None,),  # the checkpoint says how it is stored
    "quantization_config": (None, {}),
    "gpu_memory_utilization": (_ANY,),
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
    "structured_outputs_config": (None,),
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
    "enable_prompt_embeds": (False,),
    "enable_mm_embeds": (False,),
    "enable_sleep_mode": (False,),
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
    "stream_interval": (1,),
    "model_impl": ("auto", "vllm"),
    "kv_transfer_config": (None,),
    "served_model_name": (_ANY,),
    "shutdown_timeout": (_ANY,),
    "download_dir": (None,),
}


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


def engine_kwargs(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``_core.Engine`` from those of LLM, None meaning "choose for me"."""
    kwargs: dict[str, Any] = {
        "device": str(options["device"]),
        "dtype": dtype_name(options["dtype"]),
        "kv_cache_dtype": dtype_name(options["kv_cache_dtype"]),
        "load_format": str(options["load_format"]),
        "max_model_len": _max_model_len(options["max_model_len"]),
        "kv_cache_memory_bytes": _count("kv_cache_memory_bytes", options, least=0),
        "num_kv_blocks": _count("num_gpu_blocks_override", options, least=0),
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
