"""Where programs written for vLLM look for AsyncLLM."""
