"""What Octavo must reach, as a factor of a peer's figure of the same run, or as a number."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.workloads import METRICS

# Medians: metric -> variant -> value.
Medians = Mapping[str, Mapping[str, float]]

_BF16 = ("openvino:bf16", "llama_cpp:bf16", "vllm:bf16", "vllm:eager", "transformers:bf16")
_TEXT = (*_BF16, "llama_cpp:q8_0", "llama_cpp:q4_1")  # those that begin with a text
_ALL = (*_TEXT, "ctranslate2:int8")


@dataclass(frozen=True)
class Target:
    """Octavo's variant must have at least (or at most) ``factor`` times the figure of ``peer``, or
    of the best one of ``peers``. ``limit`` is a number instead."""

    metric: str
    octavo: str
    factor: float = 0.0
    peer: str = "best"
    peers: tuple[str, ...] = ()
    limit: float | None = None


TARGETS = {
    "smollm2": [
        Target("W1 decode", "octavo:bf16", 1.35, "openvino:bf16", _BF16),
        Target("W1 decode", "octavo:q4_1", 1.15, "llama_cpp:q4_1", ("llama_cpp:q4_1",)),
        Target("W1 decode", "octavo:q8_0", 1.15, "llama_cpp:q8_0", ("llama_cpp:q8_0",)),
        Target("W1 ttft", "octavo:bf16", 0.7, "best", _ALL),
        Target("W2", "octavo:bf16", 1.7, "openvino:bf16", _BF16),
        Target("W2", "octavo:q4_1", 6.0, "llama_cpp:q4_1", ("llama_cpp:q4_1",)),
        Target("W3", "octavo:bf16", 1.5, "openvino:bf16", _BF16),
        Target("W4", "octavo:bf16", 0.6, "best", _ALL),
        Target("W5", "octavo:bf16", 0.6, "best", _ALL),
        Target("start", "octavo:bf16", 1.0, "best", _TEXT),
        Target("start", "octavo:q8_0", 1.0, "best", _TEXT),
        Target("start", "octavo:q4_1", 1.0, "best", _TEXT),
        Target("memory over", "octavo:bf16", limit=60),
        Target("memory over", "octavo:q8_0", limit=60),
        Target("memory over", "octavo:q4_1", limit=60),
    ],
    "llama-1b": [
        Target("W1 decode", "octavo:bf16", 1.0, "best", _BF16),
        Target("W2S", "octavo:bf16", 1.8, "best", _BF16),
    ],
}


@dataclass(frozen=True)
class Outcome:
    """A target with what was measured; what is None was not."""

    target: Target
    value: float | None
    peer: str | None  # which the target is about
    peer_value: float | None
    best: str | None  # of the target's peers
    best_value: float | None

    @property
    def ratio(self) -> float | None:
        return _ratio(self.value, self.peer_value)

    @property
    def best_ratio(self) -> float | None:
        return _ratio(self.value, self.best_value)

    @property
    def met(self) -> bool | None:
        target, reached = self.target, self.ratio
        if target.limit is not None:
            return None if self.value is None else self.value <= target.limit
        if reached is None:
            return None
        more = METRICS[target.metric].more_is_better
        return reached >= target.factor if more else reached <= target.factor


def judge(model: str, medians: Medians) -> list[Outcome]:
    return [_judge(target, medians.get(target.metric, {})) for target in TARGETS[model]]


def _judge(target: Target, values: Mapping[str, float]) -> Outcome:
    measured = [name for name in target.peers if name in values]
    choose = max if METRICS[target.metric].more_is_better else min
    best = choose(measured, key=lambda name: values[name]) if measured else None
    named = best if target.peer == "best" else target.peer
    return Outcome(
        target,
        values.get(target.octavo),
        named,
        values.get(named) if named else None,
        best,
        values.get(best) if best else None,
    )


def _ratio(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None
