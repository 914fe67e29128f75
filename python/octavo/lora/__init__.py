"""Where programs written for vLLM look for LoRA adapters."""
