"""``EngineArgs`` where programs written for vLLM look for it."""

from octavo.engine_args import AsyncEngineArgs, EngineArgs

__all__ = ["AsyncEngineArgs", "EngineArgs"]
