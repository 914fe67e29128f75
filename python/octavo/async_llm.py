"""AsyncLLM: an LLM for programs with an event loop: one async generator for each request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

from octavo import _core
from octavo.batch import Batch
from octavo.beam_search import BeamSearchParams, RequestParams
from octavo.engine_args import EngineArgs
from octavo.errors import ValidationError, validation_error
from octavo.inference_core import InferenceCore, ParamsCache
from octavo.inputs import PromptType, parse_prompt
from octavo.model_handle import CHAT_OPTIONS, ModelHandle
from octavo.outputs import RequestOutput
from octavo.request import Job, Request
from octavo.submission import check_params, refuse, warn_of_errors

_OUTPUTS_AT_ONCE = 256  # made text of before other tasks of the loop have their turn


class AsyncLLM(ModelHandle):
    """Loads a model and generates with it, for the tasks of one or several event loops.

    Args:
        model: as for ``LLM``.
        **options: as for ``LLM``, with the same errors.
    """

    def __init__(self, model: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(EngineArgs(model, **options), "AsyncLLM")
        self._loops: dict[asyncio.AbstractEventLoop, _LoopRequests] = {}
        self._lock = threading.Lock()
        self._num_requests = 0

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> AsyncLLM:
        """An AsyncLLM with these arguments."""
        return cls(**vars(engine_args))

    async def generate(
        self,
        prompt: PromptType,
        sampling_params: RequestParams | None = None,
        request_id: str | None = None,
        *,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Generates for one prompt; ``async for`` gives what there is as it comes.

        ``SamplingParams.output_kind`` says what: all so far (CUMULATIVE, the default), what is new
        (DELTA), each of one sample, or one result at the end (FINAL_ONLY). What a slow consumer
        has missed is in the next one. With BeamSearchParams it is the best beam so far, and at the
        end the beams, best first. Leaving the loop, cancelling the task or ``aclose`` aborts
        the request.

        Args:
            prompt: text, a list of token ids, TextPrompt or TokensPrompt.
            sampling_params: None takes the model's defaults.
            request_id: a name that no request in flight has; by default it is made up.
            lora_request: must be None in this version.
            tokenization_kwargs: as for ``LLM.generate``.
            trace_headers, priority: accepted for compatibility.

        Raises:
            ValidationError: the prompt or a parameter is out of range, or the id is in use.
            TypeError: it is no prompt, or these are no SamplingParams.
            OctavoError: the AsyncLLM was closed.
        """
        refuse("lora_request", lora_request)
        params = sampling_params
        if params is None:
            params = self._core.default_sampling_params()
        check_params(params)
        self._check_ready()
        if request_id is None:
            request_id = self._new_request_id()
        elif request_id in self._core.in_flight:
            raise ValidationError(f"request_id {request_id!r} is in flight; expected a new one")
        job = await self._job(prompt, params, tokenization_kwargs)
        requests = self._requests_of_loop()
        request = requests.add(request_id, job)
        try:
            while True:
                outputs = await requests.outputs(request)
                warn_of_errors(outputs, stacklevel=2)
                for output in outputs:
                    yield output
                    if output.finished:
                        return
        finally:
            requests.drop(request)

    async def chat(
        self,
        messages: Sequence[Any],
        sampling_params: RequestParams | None = None,
        request_id: str | None = None,
        *,
        chat_template: str | None = None,
        chat_template_content_format: str = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: list[dict[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        """``generate`` for the next message of a conversation.

        The template runs in another thread; leaving the loop aborts the request. The arguments from
        ``chat_template`` to ``chat_template_kwargs`` are those of ``LLM.chat``, the others those of
        ``generate``, and so are the errors. Raises also ValidationError for several conversations.
        """
        rendering = {name: value for name, value in locals().items() if name in CHAT_OPTIONS}
        prompts = await asyncio.to_thread(self._render_chat, messages, rendering)
        if len(prompts) != 1:
            raise validation_error(
                f"chat takes one conversation, got {len(prompts)}", parameter="messages"
            )
        outputs = self.generate(prompts[0], sampling_params, request_id, **options)
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                yield output

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """Ends requests for their consumers, who get what there is, with ``finish_reason="abort"``;
        unknown ids are ignored."""
        self._core.thread()
        self._core.abort([request_id] if isinstance(request_id, str) else request_id)

    async def reset_prefix_cache(self) -> bool:
        """As ``LLM.reset_prefix_cache``."""
        reset = lambda engine: engine.reset_prefix_cache()  # noqa: E731
        await asyncio.to_thread(self._core.between_steps, reset)
        return True

    async def sleep(self, level: int = 1, mode: str = "abort") -> None:
        """As ``LLM.sleep``."""
        await asyncio.to_thread(self._sleep.sleep, level, mode)

    async def wake_up(self, tags: Iterable[str] | None = None) -> bool:
        """As ``LLM.wake_up``."""
        return await asyncio.to_thread(self._sleep.wake_up, tags)

    async def is_sleeping(self) -> bool:
        """As ``LLM.is_sleeping``."""
        return self._sleep.sleeping

    def close(self) -> None:
        """Gives the model's memory and threads back, after the step in progress.

        Tasks that wait for outputs get OctavoError.
        """
        self._core.close()
        with self._lock:
            loops = list(self._loops.values())
        for requests in loops:
            requests.look_soon()

    def shutdown(self, timeout: float | None = None) -> None:
        """As ``close``."""
        self.close()

    async def __aenter__(self) -> AsyncLLM:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self.close)

    async def _job(
        self, prompt: Any, params: RequestParams, tokenization_kwargs: Mapping[str, Any] | None
    ) -> Job:
        """The prompt made ready, in another thread where that may take long."""
        parsed = parse_prompt(prompt)

        def make() -> Job:
            copied, core_params = ParamsCache(self._core).get(params)
            return self._core.job(0, parsed, copied, core_params, tokenization_kwargs)

        quick = parsed.token_ids is not None and params.structured_outputs is None
        quick = quick and not (isinstance(params, BeamSearchParams) and params.stop)
        return make() if quick else await asyncio.to_thread(make)

    def _new_request_id(self) -> str:
        with self._lock:
            while str(self._num_requests) in self._core.in_flight:
                self._num_requests += 1
            self._num_requests += 1
            return str(self._num_requests - 1)

    def _requests_of_loop(self) -> _LoopRequests:
        loop = asyncio.get_running_loop()
        with self._lock:
            for other in [other for other in self._loops if other.is_closed()]:
                del self._loops[other]
            if loop not in self._loops:
                self._loops[loop] = _LoopRequests(self._core, loop)
            return self._loops[loop]


class _LoopRequests:
    """The requests of one event loop, whose thread alone uses it, but for ``look_soon``.

    The loop watches the descriptor of their queue: it is woken up once a step, not once a token.
    """

    def __init__(self, core: InferenceCore, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        self._batch = Batch(core, self.look_soon)
        self._changed: dict[Request, asyncio.Event] = {}
        self._backlog: deque[_core.RequestOutput] = deque()
        self._working = False  # a turn at the backlog is under way

    def add(self, request_id: str, job: Job) -> Request:
        request = self._batch.add(request_id, job, job.params.output_kind)
        if not self._changed:
            self._loop.add_reader(self._batch.fd, self._take)
        self._changed[request] = asyncio.Event()
        return request

    async def outputs(self, request: Request) -> list[RequestOutput]:
        """What is new of a request; waits for it."""
        changed = self._changed[request]
        while True:
            outputs = request.take()
            if outputs:
                return outputs
            self._core.check_open()
            changed.clear()
            await changed.wait()

    def drop(self, request: Request) -> None:
        """Forgets a request, and aborts it where it runs."""
        self._batch.drop(request)
        self._changed.pop(request, None)
        if not self._changed:
            self._loop.remove_reader(self._batch.fd)

    def look_soon(self) -> None:
        """Looks what has changed other than by outputs. May be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        self._take()
        if self._core.closed:
            for changed in self._changed.values():
                changed.set()

    def _take(self) -> None:
        self._backlog.extend(self._batch.take_outputs())
        if not self._working:
            self._work()

    def _work(self) -> None:
        """Makes text of some outputs, and leaves the rest for the loop's next turn."""
        count = min(len(self._backlog), _OUTPUTS_AT_ONCE)
        some = [self._backlog.popleft() for _ in range(count)]
        for request in self._batch.collect(some):
            if request in self._changed:
                self._changed[request].set()
        self._working = bool(self._backlog)
        if self._working:
            self._loop.call_soon(self._work)
