"""Where programs written for older versions of vLLM look for tokenizers."""
