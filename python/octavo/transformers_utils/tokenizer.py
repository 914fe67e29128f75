"""``get_tokenizer`` where programs written for older versions of vLLM look for it."""

from octavo.tokenizers import get_tokenizer

__all__ = ["get_tokenizer"]
