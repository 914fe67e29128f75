"""EnqueuedWork: requests that are under way while their caller does other things."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from octavo.batch import Batch
from octavo.inference_core import InferenceCore
from octavo.outputs import RequestOutput
from octavo.progress import ProgressBar, UseTqdm
from octavo.request import Request
from octavo.submission import PromptAndParams, Submission


class EnqueuedWork:
    """What ``LLM.enqueue`` has submitted since the last ``wait``. May be used from any thread."""

    def __init__(self, core: InferenceCore) -> None:
        self._core = core
        self._lock = threading.Lock()
        self._batch: Batch | None = None
        self._requests: list[Request] = []

    def add(
        self,
        prompts: Iterable[PromptAndParams],
        request_ids: Iterator[int],
        tokenization_kwargs: Mapping[str, Any] | None,
    ) -> list[str]:
        """Submits prompts; returns their ids. Raises what ``Submission.submit`` raises, and then
        none of them is under way."""
        added: list[Request] = []
        with self._lock:
            batch = self._batch = self._batch or self._core.batch()
            submission = Submission(
                self._core, batch, request_ids, tokenization_kwargs=tokenization_kwargs
            )
            try:
                for prompt, params in prompts:
                    request = submission.submit(prompt, params)
                    assert isinstance(request, Request)  # a refused one has raised
                    added.append(request)
                self._requests += added
            except BaseException:
                batch.drop_all_but(self._requests)
                raise
        return [request.request_id for request in added]

    def wait(self, use_tqdm: UseTqdm) -> list[RequestOutput]:
        """The results of what was submitted, by id. An interrupt aborts what is in flight."""
        batch: Batch | None = None
        try:
            with self._lock:
                batch, requests = self._batch, self._requests
                self._batch, self._requests = None, []
            return [] if batch is None else _results(batch, requests, use_tqdm)
        finally:
            if batch is not None:
                batch.drop_all_but(())

    def abort(self) -> None:
        """Aborts what nobody has waited for."""
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.drop_all_but(())


def _results(batch: Batch, requests: list[Request], use_tqdm: UseTqdm) -> list[RequestOutput]:
    outputs: dict[str, RequestOutput] = {}
    with ProgressBar(use_tqdm, sum(request.params.n for request in requests)) as bar:
        while batch.num_in_flight:
            for request in batch.wait():
                if request.finished:
                    output = outputs[request.request_id] = request.output()
                    bar.update(output)
    return [outputs[request_id] for request_id in sorted(outputs, key=int)]
