"""ModelHandle: what LLM and AsyncLLM have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.engine_args import EngineArgs
from octavo.inference_core import InferenceCore
from octavo.metrics import Metric
from octavo.sampling_params import SamplingParams
from octavo.sleep import SleepControl
from octavo.submission import check_on_error
from octavo.tokenizer import Tokenizer

# The arguments of chats that say how conversations are rendered; see ``ChatOptions``.
CHAT_OPTIONS = (
    "chat_template",
    "chat_template_content_format",
    "add_generation_prompt",
    "continue_final_message",
    "tools",
    "chat_template_kwargs",
)


class ModelHandle:
    """A loaded model, and what there is to know of it. May be used from any thread.

    Args:
        args: see ``LLM``.
        name: whose errors these are.
    """

    def __init__(self, args: EngineArgs, name: str) -> None:
        core = self._core = InferenceCore(args, name)
        self._name = name
        self.model = core.model
        self.model_info = core.model_info
        self.max_model_len = core.max_model_len
        self.chat_template = core.chat_template
        self._sleep = SleepControl(core)

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises ValidationError with ``skip_tokenizer_init``."""
        return self._core.need_tokenizer("get_tokenizer")

    def get_default_sampling_params(self) -> SamplingParams:
        """What ``generate`` takes when no SamplingParams are given."""
        return self._core.default_sampling_params()

    def get_metrics(self, prefix: str = "vllm") -> list[Metric]:
        """The engine's figures: Counter, Gauge and Histogram of ``octavo.metrics``.

        Their names are vLLM's, such as "vllm:generation_tokens".
        """
        return self._core.metrics(prefix)

    def stats(self) -> dict[str, int]:
        """The engine's counters and gauges by name, as of the end of its last step."""
        return self._core.stats()

    def __repr__(self) -> str:
        state = "closed" if self._core.closed else self.model_info.architecture
        return f"{self._name}(model={self.model!r}, {state})"

    def _check_ready(self) -> None:
        self._core.thread()
        self._sleep.check_memory()

    def _render_chat(
        self, messages: Sequence[Any], options: Mapping[str, Any], on_error: str = "raise"
    ) -> list[Any]:
        """The prompts of conversations; ``options`` are of CHAT_OPTIONS. With ``on_error="return"``
        a conversation that cannot be rendered is a FailedPrompt."""
        from octavo.chat import ChatOptions, render_chat, try_render_chat

        check_on_error(on_error)
        self._check_ready()
        tokenizer = self._core.need_tokenizer("chat")
        if options.get("chat_template") is None:
            options = {**options, "chat_template": self.chat_template}
        render: Any = render_chat if on_error == "raise" else try_render_chat
        return list(render(messages, tokenizer, ChatOptions(**options)))
