"""The engine's figures in the form of vLLM's ``LLM.get_metrics``: values by name and labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class Metric:
    """A figure with its name and labels, such as the model's name."""

    name: str
    labels: dict[str, str]


@dataclass
class Counter(Metric):
    """A number that only grows."""

    value: int


@dataclass
class Vector(Metric):
    """Numbers by position."""

    values: list[int]


@dataclass
class Gauge(Metric):
    """A number as it is now."""

    value: float


@dataclass
class Histogram(Metric):
    """Observations: how many, their sum, and how many are at most each bound, of which "+Inf" is
    the last."""

    count: int
    sum: float
    buckets: dict[str, int]


def read_metrics(raw: Iterable[Mapping[str, Any]], prefix: str) -> list[Metric]:
    """The figures of ``_core.Engine.metrics``, their names as ``prefix:name``."""
    return [_read(entry, f"{prefix}:" if prefix else "") for entry in raw]


def _read(entry: Mapping[str, Any], prefix: str) -> Metric:
    name, labels = prefix + entry["name"], dict(entry["labels"])
    if entry["kind"] == "counter":
        return Counter(name, labels, int(entry["value"]))
    if entry["kind"] == "gauge":
        return Gauge(name, labels, float(entry["value"]))
    buckets = {_bound(bound): int(count) for bound, count in entry["buckets"]}
    return Histogram(name, labels, int(entry["count"]), float(entry["sum"]), buckets)


def _bound(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else str(float(bound))
