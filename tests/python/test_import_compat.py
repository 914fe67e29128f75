"""The names that programs written for vLLM import, at the places from which they import them."""

import importlib
import re

import fake_core  # noqa: F401
import octavo
import pytest
import text_models
from fake_llm import TEMPLATE, maker, save_model, small_backend
from octavo import ModelLoadError, NotSupportedError, ValidationError
from octavo.chat_template import ChatTemplateResolutionError
from octavo.tokenizer import load_tokenizer
from test_import import run

# What vLLM's own examples and lm-eval import, with "octavo" for "vllm".
IMPORTS = """
from octavo import LLM, SamplingParams, RequestOutput, CompletionOutput
from octavo import EngineArgs, AsyncEngineArgs, PromptType, TextPrompt, TokensPrompt
from octavo.sampling_params import SamplingParams, StructuredOutputsParams, GuidedDecodingParams
from octavo.sampling_params import RequestOutputKind, SamplingType, RepetitionDetectionParams
from octavo.sampling_params import LogitsProcessor
from octavo.outputs import RequestOutput, CompletionOutput, RequestStateStats, Logprob
from octavo.logprobs import Logprob, FlatLogprobs, PromptLogprobs, SampleLogprobs
from octavo.inputs import TextPrompt, TokensPrompt, PromptType, SingletonPrompt
from octavo.entrypoints.llm import LLM
from octavo.entrypoints.chat_utils import load_chat_template, ChatCompletionMessageParam
from octavo.entrypoints.chat_utils import ChatTemplateContentFormatOption, ConversationMessage
from octavo.entrypoints.chat_utils import CustomChatCompletionMessageParam
from octavo.entrypoints.chat_utils import ChatTemplateResolutionError, resolve_hf_chat_template
from octavo.renderers.chat_utils import load_chat_template, ChatCompletionMessageParam
from octavo.renderers.hf import resolve_chat_template
from octavo.tokenizers import get_tokenizer
from octavo.transformers_utils.tokenizer import get_tokenizer
from octavo.lora.request import LoRARequest
from octavo.engine.arg_utils import EngineArgs, AsyncEngineArgs
from octavo.engine.async_llm_engine import AsyncLLMEngine
from octavo.v1.engine.async_llm import AsyncLLM
from octavo.utils import random_uuid
"""


def names():
    for line in IMPORTS.split("\n"):
        if line:
            module, listed = re.fullmatch(r"from (\S+) import (.*)", line).groups()
            for name in listed.split(", "):
                yield module, name


@pytest.mark.parametrize(("module", "name"), list(names()))
def test_names(module, name):
    assert hasattr(importlib.import_module(module), name)


def test_one_class_under_every_name():
    from octavo.engine.arg_utils import EngineArgs
    from octavo.entrypoints import chat_utils as old
    from octavo.entrypoints.llm import LLM
    from octavo.renderers import chat_utils as new
    from octavo.structured_outputs import StructuredOutputsParams

    assert LLM is octavo.LLM
    assert EngineArgs is octavo.EngineArgs
    assert octavo.sampling_params.StructuredOutputsParams is StructuredOutputsParams
    assert octavo.outputs.Logprob is octavo.Logprob
    for name in new.__all__:
        assert getattr(old, name) is getattr(new, name)


def test_they_import_nothing_heavy():
    code = f"{IMPORTS}\nimport sys; print(*sys.modules)"
    loaded = set(run(code).split())
    assert "octavo.lora.request" in loaded
    heavy = {"torch", "transformers", "tokenizers", "jinja2", "huggingface_hub", "tqdm"}
    assert not heavy & loaded


def test_load_chat_template(tmp_path):
    from octavo.entrypoints.chat_utils import load_chat_template

    path = tmp_path / "template.jinja"
    path.write_text(TEMPLATE)
    assert load_chat_template(str(path)) == TEMPLATE
    assert load_chat_template(chat_template=path) == TEMPLATE
    assert load_chat_template(TEMPLATE) == TEMPLATE
    assert load_chat_template(None) is None
    with pytest.raises(ValidationError, match="looks like a file path, but it failed"):
        load_chat_template(str(tmp_path / "nothing.jinja"))


def test_resolve_chat_template(tmp_path):
    from octavo.renderers.hf import resolve_chat_template

    tokenizer = load_tokenizer(str(save_model(small_backend(), tmp_path / "with")))
    assert resolve_chat_template(tokenizer, None, None, model_config=object()) == TEMPLATE
    assert resolve_chat_template(tokenizer, "{{ 1 }}") == "{{ 1 }}"
    without = load_tokenizer(str(text_models.save(small_backend(), tmp_path / "without")))
    assert resolve_chat_template(tokenizer=without, chat_template=None, tools=None) is None
    assert issubclass(ChatTemplateResolutionError, ValidationError)


def test_get_tokenizer_is_that_of_transformers(tmp_path):
    from octavo.tokenizers import get_tokenizer

    transformers = pytest.importorskip("transformers")
    model = save_model(small_backend(), tmp_path)
    tokenizer = get_tokenizer(str(model), tokenizer_mode="auto", trust_remote_code=True)
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerBase)
    text = "Hello, world"
    assert tokenizer(text).input_ids == load_tokenizer(str(model)).encode(text)
    assert tokenizer.name_or_path == str(model)


def test_what_get_tokenizer_refuses(tmp_path):
    from octavo.tokenizers import get_tokenizer

    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(NotSupportedError, match=r"model.gguf is a file; .* LLM.get_tokenizer"):
        get_tokenizer(tmp_path / "model.gguf")
    with pytest.raises(ValidationError, match="tokenizer_mode must be one of"):
        get_tokenizer(tmp_path, tokenizer_mode="mistral")
    with pytest.raises(ModelLoadError, match="does not exist"):
        get_tokenizer(str(tmp_path / "nothing"))


def test_an_adapter_is_refused_where_it_is_used(monkeypatch, tmp_path):
    from octavo.lora.request import LoRARequest

    adapter = LoRARequest("style", 1, "/adapters/style")
    assert (adapter.name, adapter.adapter_id, adapter.path) == ("style", 1, "/adapters/style")
    backend = small_backend()
    llm = maker(monkeypatch, save_model(backend, tmp_path), backend)()
    with pytest.raises(NotSupportedError, match="lora_request"):
        llm.generate("x", lora_request=adapter, use_tqdm=False)


def test_random_uuid():
    from octavo.utils import random_uuid

    assert re.fullmatch("[0-9a-f]{32}", random_uuid())
    assert random_uuid() != random_uuid()
