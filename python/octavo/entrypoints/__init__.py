"""Where programs written for vLLM look for LLM and the chat utilities."""
