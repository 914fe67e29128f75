"""Averages and percentiles of what a benchmark has measured, as vLLM reports them."""

from __future__ import annotations

import math
from collections.abc import Sequence

PERCENTAGES = (10, 25, 50, 75, 90, 99)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def percentile(values: Sequence[float], percentage: float) -> float:
    """Linear between the two nearest values, as numpy's default."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percentage / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The percentiles of PERCENTAGES, by their names in JSON."""
    return {str(p): percentile(values, p) for p in PERCENTAGES}
