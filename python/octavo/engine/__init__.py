"""Where programs written for vLLM look for the arguments of an engine."""
