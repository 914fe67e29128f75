"""Batch: the requests of one call, in the engine's batch with those of all other calls.

A thread of the engine steps it; a batch adds requests, and takes what comes for them from a queue
of its own. It is a context manager that owns its requests: whatever ends it early, a
KeyboardInterrupt too, aborts those that are still in flight, without waiting for the step in
progress.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from octavo import _core
from octavo.beam_request import BeamRequest
from octavo.beam_search import BeamSearchParams
from octavo.errors import ValidationError
from octavo.request import Job, Request
from octavo.sampling_params import RequestOutputKind

if TYPE_CHECKING:
    from octavo.inference_core import InferenceCore

# How long a call waits before it looks whether the model was closed or its request aborted.
_POLL_SECONDS = 0.05


class Batch:
    """The requests of one call, or of one event loop. Used by one thread at a time, but for
    ``ask_to_abort``.

    Args:
        core: the model.
        on_abort: is called after ``ask_to_abort``, in its thread; ``wait`` looks by itself.
    """

    def __init__(self, core: InferenceCore, on_abort: Callable[[], None] | None = None) -> None:
        self._core = core  # not its engine: a batch that is left behind keeps no memory
        self._queue = _core.OutputQueue()
        self._live: dict[int, Request] = {}
        self._owned: set[int] = set()  # ids in flight, from the moment that the engine has them
        self._to_abort: deque[Request] = deque()
        self._on_abort = on_abort

    def add(
        self,
        request_id: str,
        job: Job,
        kind: RequestOutputKind = RequestOutputKind.FINAL_ONLY,
    ) -> Request:
        """Hands a prompt to the engine. Raises ValidationError, changing nothing."""
        core = self._core
        make = BeamRequest if isinstance(job.params, BeamSearchParams) else Request
        request = make(request_id, job, core.text_rules, kind, core.stream_interval)
        request.whole = _whole(job, kind)
        if core.in_flight.setdefault(request_id, (self, request))[1] is not request:
            raise ValidationError(
                f"request_id {request_id!r} is in flight; expected one that is not"
            )
        try:
            request.engine_id = self._submit(job, kind)
            self._live[request.engine_id] = request
        except BaseException:
            core.in_flight.pop(request_id, None)
            raise
        return request

    def _submit(self, job: Job, kind: RequestOutputKind) -> int:
        thread, params = self._core.thread(), job.core_params
        if isinstance(params, _core.SamplingParams):
            return thread.add_request(
                job.token_ids, params, self._queue, job.cache_salt, self._owned, _whole(job, kind)
            )
        params.stream = kind != RequestOutputKind.FINAL_ONLY
        return thread.add_beam_search(
            job.token_ids, params, self._queue, job.cache_salt, self._owned
        )

    @property
    def num_in_flight(self) -> int:
        """The requests that have not ended."""
        return len(self._live)

    @property
    def fd(self) -> int:
        """A descriptor that is readable while outputs wait."""
        return self._queue.fd

    def poll(self) -> Iterable[Request]:
        """The requests for which something has come, without waiting."""
        return self.collect(self._queue.take(0.0))

    def wait(self) -> Iterable[Request]:
        """The requests for which something has come; waits for it, while any is in flight.

        Raises OctavoError when the model is closed meanwhile.
        """
        while self._live:
            outputs = self._queue.take(_POLL_SECONDS)
            self._core.check_open()
            changed = self.collect(outputs)
            if changed:
                return changed
        return ()

    def collect(self, outputs: list[_core.RequestOutput]) -> Iterable[Request]:
        """Gives outputs to their requests; returns these, each once."""
        changed: dict[int, Request] = {}
        while self._to_abort:
            request = self._to_abort.popleft()
            if request.engine_id in self._live:
                request.end("abort")
                changed[request.engine_id] = request
                self._forget(request)
        ended = []
        for output in outputs:
            engine_id = output.request_id
            found = self._live.get(engine_id)
            if found is None:
                continue
            changed[engine_id] = found
            if found.advance(output):
                self._core.abort_sample_in_engine(engine_id, output.sample_index)
            if found.finished:
                self._forget(found)
            elif output.request_finished:
                ended.append(found)
        for request in ended:  # the engine will say no more
            if not request.finished:
                request.end("error", "the engine ended the request without a reason")
                self._forget(request)
        return changed.values()

    def take_outputs(self) -> list[_core.RequestOutput]:
        """What has come, for ``collect``."""
        return self._queue.take(0.0)

    def ask_to_abort(self, request: Request) -> None:
        """Ends a request for its caller, who gets what there is. May be called from any thread."""
        if not request.whole:  # else its last output comes
            self._to_abort.append(request)
        self._core.abort_in_engine([request.engine_id])
        if self._on_abort is not None:
            self._on_abort()

    def drop(self, request: Request) -> None:
        """Aborts a request whose caller has gone."""
        if request.engine_id in self._live:
            self._forget(request)
            self._core.abort_in_engine([request.engine_id])

    def drop_all_but(self, kept: Iterable[Request]) -> None:
        """Aborts what is in flight beside these requests."""
        ids = {request.engine_id for request in kept}
        for engine_id in self._owned - ids:
            self._owned.discard(engine_id)
            self._live.pop(engine_id, None)
            self._core.abort_in_engine([engine_id])
        # An interrupt may have come between any two lines: look at all that has a name.
        for request_id, (batch, request) in list(self._core.in_flight.items()):
            if batch is self and request.engine_id not in self._live:
                self._core.in_flight.pop(request_id, None)

    def abort(self) -> None:
        """Aborts all that is in flight."""
        if self._owned or self._live:
            self.drop_all_but(())

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, exc_type: object, *exc_info: object) -> None:
        if exc_type is None:
            self.abort()
        else:
            self.drop_all_but(())

    def _forget(self, request: Request) -> None:
        self._live.pop(request.engine_id, None)
        self._owned.discard(request.engine_id)
        self._core.in_flight.pop(request.request_id, None)


def _whole(job: Job, kind: RequestOutputKind) -> bool:
    """Whether nobody looks at a request before its end, not even for a stop string."""
    plain = isinstance(job.core_params, _core.SamplingParams) and not job.params.stop
    return plain and kind == RequestOutputKind.FINAL_ONLY
