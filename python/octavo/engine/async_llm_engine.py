"""``AsyncLLMEngine``, as older versions of vLLM called ``AsyncLLM``."""

from octavo.async_llm import AsyncLLM as AsyncLLMEngine

__all__ = ["AsyncLLMEngine"]
