"""``AsyncLLM`` where programs written for vLLM look for it."""

from octavo.async_llm import AsyncLLM

__all__ = ["AsyncLLM"]
