"""``LLM`` where programs written for vLLM look for it."""

from octavo.llm import LLM

__all__ = ["LLM"]
