"""Where programs written for vLLM look for what makes prompts of conversations."""
