"""InferenceCore: what LLM and AsyncLLM share: the engine and its thread, the tokenizer, the model's
limits and defaults, and the requests in flight. May be used from any thread."""

from __future__ import annotations

import contextlib
import copy
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from octavo import _core
from octavo.batch import Batch
from octavo.beam_search import BeamSearchParams, RequestParams
from octavo.engine_args import EngineArgs, check_stream_interval, engine_kwargs
from octavo.errors import OctavoError, ValidationError
from octavo.generation_config import GenerationConfig, parse_model_config
from octavo.hub import resolve_model
from octavo.inputs import ParsedPrompt
from octavo.logprobs import TokenTexts
from octavo.metrics import Metric, read_metrics
from octavo.model_info import ModelInfo
from octavo.prompts import PromptLimits, render_prompt
from octavo.request import CoreParams, EndTokens, Job, Request, TextRules
from octavo.sampling_params import SamplingParams
from octavo.token_rules import tokenize_bad_words
from octavo.tokenizer import Tokenizer, load_tokenizer

_DEFAULT_MAX_NUM_SEQS = 256  # the engine's own


class InferenceCore:
    """A loaded model with a thread that steps it.

    Args:
        args: see ``LLM``.
        name: whose errors these are, "LLM" or "AsyncLLM".
    """

    def __init__(self, args: EngineArgs, name: str) -> None:
        self._engine: _core.Engine | None = None
        self._thread: _core.EngineThread | None = None
        self._closing = False
        self._close_lock = threading.RLock()
        self._pid = os.getpid()
        self._name = name
        options = engine_kwargs(vars(args))
        self.args = args
        self.stream_interval = check_stream_interval(args.stream_interval)
        self.max_num_seqs: int = options.get("max_num_seqs", _DEFAULT_MAX_NUM_SEQS)
        self.max_logprobs: int = options["max_logprobs"]
        self.model = resolve_model(
            args.model,
            revision=args.revision,
            token=args.hf_token,
            weights=args.load_format != "dummy",
        )
        self.tokenizer = _load_tokenizer(args, self.model)
        self.chat_template = _load_template(args.chat_template)
        self.in_flight: dict[str, tuple[Batch, Request]] = {}
        self._vocabulary_lock = threading.Lock()
        self._start(options)

    def _start(self, options: dict[str, Any]) -> None:
        """Makes the engine, and reads what depends on its model."""
        self._engine = _core.Engine(model=self.model, **options)
        self.model_info = ModelInfo.of(self._engine.model_info)
        self.model_config = parse_model_config(self.model_info.config_json)
        self.max_model_len = self.model_info.max_model_len
        self._generation_config = GenerationConfig(
            self.model,
            self.args.generation_config,
            self.args.override_generation_config,
            self.model_config,
        )
        texts = None if self.tokenizer is None else TokenTexts(self.tokenizer)
        self.text_rules = TextRules(self.tokenizer, self._end_tokens(), texts)
        self._thread = _core.EngineThread(self._engine)

    # Its life.

    def thread(self) -> _core.EngineThread:
        """The thread that steps the engine. Raises OctavoError when it is closed or forked."""
        thread = self._thread
        if os.getpid() != self._pid:
            raise OctavoError(
                f"{self._name}: created in process {self._pid} and used in its fork "
                f"{os.getpid()}, where its threads do not exist; expected an {self._name} that "
                "this process created (or multiprocessing's 'spawn' start method)"
            )
        if thread is None or self._closing:
            raise OctavoError(f"{self._name}: it is closed; expected an open one")
        return thread

    def check_open(self) -> None:
        """For a call that waits. Raises OctavoError when it was closed meanwhile."""
        if self._closing:
            raise OctavoError(f"{self._name}: it was closed while it was generating")

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closing

    def close(self) -> None:
        """Aborts what is in flight and gives memory and threads back; waits for the step in
        progress."""
        self._closing = True
        if os.getpid() != self._pid:  # a fork: there is no thread to end, and none to wait for
            self._thread = self._engine = None
            return
        with self._close_lock:
            thread, self._thread, self._engine = self._thread, None, None
            if thread is not None:
                thread.close()

    def __del__(self) -> None:
        with contextlib.suppress(OctavoError):  # the engine's thread cannot wait for itself
            self.close()

    # Requests.

    def batch(self) -> Batch:
        """A new batch for one call."""
        self.thread()
        return Batch(self)

    def abort(self, request_ids: Iterable[str]) -> None:
        """Ends requests for their callers, who get what there is; unknown ids are ignored."""
        for request_id in request_ids:
            found = self.in_flight.get(request_id)
            if found is not None:
                batch, request = found
                batch.ask_to_abort(request)

    def abort_in_engine(self, engine_ids: Iterable[int]) -> None:
        """Takes requests out of the engine. No effect on a closed one."""
        thread = self._thread
        if thread is None or os.getpid() != self._pid:
            return
        with contextlib.suppress(OctavoError):  # closed meanwhile
            for engine_id in engine_ids:
                thread.abort(engine_id)

    def abort_sample_in_engine(self, engine_id: int, sample_index: int) -> None:
        """Ends one sample of a request in the engine. No effect on a closed one."""
        thread = self._thread
        if thread is not None:
            with contextlib.suppress(OctavoError):  # closed meanwhile
                thread.abort_sample(engine_id, sample_index)

    def job(
        self,
        index: int,
        prompt: ParsedPrompt,
        params: RequestParams,
        core_params: CoreParams,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> Job:
        """A prompt made ready to be added. Raises ValidationError."""
        limits = PromptLimits(
            self.max_model_len, self.model_info.vocab_size, 0 if params.max_tokens == 0 else 1
        )
        text, ids = render_prompt(prompt, self.tokenizer, limits, tokenization_kwargs or {})
        return Job(index, text, ids, prompt.cache_salt, params, core_params)

    def core_params(self, params: RequestParams) -> CoreParams:
        """The engine's form of the parameters. Raises ValidationError unless they fit the model."""
        if not isinstance(params, BeamSearchParams):
            return self._core_sampling_params(params)
        if params.stop:
            self._set_vocabulary("stop in a beam search")
        return params.to_core(self._core_sampling_params(params.token_rules()))

    def _core_sampling_params(self, params: SamplingParams) -> _core.SamplingParams:
        vocab_size = self.model_info.vocab_size
        params.check_vocabulary(vocab_size)
        params.check_max_logprobs(self.max_logprobs, vocab_size)
        if params.structured_outputs is not None:
            self._set_vocabulary("structured_outputs")
        bad_words = tokenize_bad_words(params.bad_words or (), self.tokenizer, vocab_size)
        return params.to_core(self.text_rules.ends.others, bad_words)

    def default_sampling_params(self) -> SamplingParams:
        """What is taken when no SamplingParams are given."""
        return self._generation_config.default_sampling_params()

    def need_tokenizer(self, what: str) -> Tokenizer:
        """The tokenizer. Raises ValidationError with ``skip_tokenizer_init``."""
        if self.tokenizer is None:
            raise ValidationError(f"{what} needs a tokenizer; expected skip_tokenizer_init=False")
        return self.tokenizer

    # The engine.

    def between_steps(self, function: Callable[[_core.Engine], Any]) -> Any:
        """What the function gives, called when no step is under way."""
        thread, engine = self.thread(), self._engine
        assert engine is not None
        results: list[Any] = []
        thread.run_between_steps(lambda: results.append(function(engine)))
        return results[0]

    def stats(self) -> dict[str, int]:
        """The engine's counters and gauges by name, as of the last step."""
        return dict(self.thread().stats())

    def metrics(self, prefix: str) -> list[Metric]:
        """The engine's figures; see ``LLM.get_metrics``."""
        return read_metrics(self.between_steps(lambda engine: engine.metrics()), prefix)

    def _set_vocabulary(self, what: str) -> None:
        """Tells the engine, once, what text each token is, which ``what`` needs."""
        from octavo.structured_outputs import token_bytes

        tokenizer = self.need_tokenizer(what)
        engine = self._engine
        with self._vocabulary_lock:
            if engine is not None and not engine.has_vocabulary():
                vocabulary = token_bytes(tokenizer, self.model_info.vocab_size)
                self.between_steps(lambda engine: engine.set_vocabulary(vocabulary))

    def _end_tokens(self) -> EndTokens:
        model_eos = self.model_info.eos_token_id
        ids = list(self._generation_config.eos_token_ids)
        primary = model_eos
        if self.tokenizer is not None:
            if self.tokenizer.eos_token_id is not None:
                primary = self.tokenizer.eos_token_id
            ids += self.tokenizer.extra_eos_token_ids
        everything = dict.fromkeys(ids if primary is None else [primary, *ids])
        vocabulary = range(self.model_info.vocab_size)
        others = tuple(i for i in everything if i != model_eos and i in vocabulary)
        return EndTokens(primary, others, model_eos)


class ParamsCache:
    """The engine's form of parameters that come again and again. Used by one thread."""

    _MOST = 4096

    def __init__(self, core: InferenceCore) -> None:
        self._core = core
        self._known: dict[int, tuple[Any, RequestParams, CoreParams]] = {}

    def get(self, params: RequestParams) -> tuple[RequestParams, CoreParams]:
        """A copy of the parameters as they are now, and the engine's form of it.

        Raises ValidationError.
        """
        known = self._known.get(id(params))
        if known is not None and known[1] == params:
            return known[1], known[2]
        now = copy.copy(params)
        core_params = self._core.core_params(now)
        if len(self._known) >= self._MOST:
            self._known.clear()
        self._known[id(params)] = (params, now, core_params)  # holding it keeps its id its own
        return now, core_params


def _load_tokenizer(args: EngineArgs, model: str) -> Tokenizer | None:
    if args.skip_tokenizer_init:
        return None
    where = model
    if args.tokenizer is not None:
        where = resolve_model(
            args.tokenizer, revision=args.tokenizer_revision, token=args.hf_token, weights=False
        )
    return load_tokenizer(where)


def _load_template(chat_template: Path | str | None) -> str | None:
    if chat_template is None:
        return None
    from octavo.chat_template import load_chat_template

    return load_chat_template(chat_template)
