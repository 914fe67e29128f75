"""The workloads: prompts are slices of one long text, other slices in each repeat, so that a prefix
cache helps only within the workload that is about it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Ids = list[int]


@dataclass(frozen=True)
class Requests:
    """What every engine is asked for at once: greedy, ignoring the end of sequence."""

    prompts: list[Ids]
    output_lens: list[int]
    beams: int = 0

    @property
    def num_tokens(self) -> int:
        """The most tokens that are in the KV cache at once, unless blocks are shared."""
        return max(self.beams, 1) * (sum(map(len, self.prompts)) + sum(self.output_lens))

    @property
    def num_sequences(self) -> int:
        """The most sequences at once; beams are there twice while the next ones are forked."""
        return max(2 * self.beams, 1) * len(self.prompts)


class Corpus:
    """The ids of the text, cut off from its front; after its end it begins again."""

    def __init__(self, ids: Sequence[int]) -> None:
        self._ids = list(ids)
        self._next = 0

    def take(self, count: int) -> Ids:
        taken: Ids = []
        while len(taken) < count:
            part = self._ids[self._next : self._next + count - len(taken)]
            taken += part
            self._next = (self._next + len(part)) % len(self._ids)
        return taken


def _single(corpus: Corpus) -> Requests:
    return Requests([corpus.take(128)], [128])


def _batch(count: int) -> Callable[[Corpus], Requests]:
    def make(corpus: Corpus) -> Requests:
        draw = random.Random(7)
        lengths = [(draw.randint(32, 512), draw.randint(16, 256)) for _ in range(count)]
        return Requests([corpus.take(length) for length, _ in lengths], [n for _, n in lengths])

    return make


def _prefill(corpus: Corpus) -> Requests:
    return Requests([corpus.take(1024)], [1])


def _prefix(corpus: Corpus) -> Requests:
    prefix = corpus.take(512)
    return Requests([prefix + corpus.take(32) for _ in range(32)], [32] * 32)


def _beam(corpus: Corpus) -> Requests:
    return Requests([corpus.take(64)], [50], beams=5)


WORKLOADS: dict[str, Callable[[Corpus], Requests]] = {
    "W1": _single,
    "W2": _batch(64),
    "W2S": _batch(16),
    "W3": _prefill,
    "W4": _prefix,
    "W5": _beam,
}
MEMORY_WORKLOAD = "W2S"
PROCESS_WORKLOADS = ["start", "memory"]  # each in a process of its own


@dataclass(frozen=True)
class Metric:
    """One figure of a workload."""

    title: str
    unit: str
    more_is_better: bool
    digits: int = 0


METRICS: dict[str, Metric] = {
    "W1 ttft": Metric("W1 time to first token", "ms", False, 1),
    "W1 decode": Metric("W1 decode", "tokens/s", True, 1),
    "W2": Metric("W2 batch", "output tokens/s", True),
    "W2S": Metric("W2S batch", "output tokens/s", True),
    "W3": Metric("W3 prompt", "prompt tokens/s", True),
    "W4": Metric("W4 shared prefix", "s", False, 2),
    "W5": Metric("W5 beam search", "s", False, 2),
    "start": Metric("process start to first token", "s", False, 2),
    "memory peak": Metric("peak memory", "MB", False),
    "memory over": Metric("peak memory over weights + KV", "MB", False),
}


def metrics_of(workload: str, requests: Requests, answer: dict[str, float]) -> dict[str, float]:
    """The figures of one run."""
    if workload == "W1":
        num_later = answer["num_tokens"] - answer["num_first"]
        if num_later:
            decode = num_later / (answer["last_token"] - answer["first_token"])
        else:  # all came at once: the prompt's time cannot be told from theirs
            decode = answer["num_tokens"] / answer["last_token"]
        return {
            "W1 ttft": answer["first_token"] * 1e3,
            "W1 decode": max(decode, answer.get("bench_tokens_per_second", 0.0)),
        }
    if workload in ("W2", "W2S"):
        return {workload: answer["num_tokens"] / answer["seconds"]}
    if workload == "W3":
        return {workload: len(requests.prompts[0]) / answer["seconds"]}
    return {workload: answer["seconds"]}
