"""Metrics as a sum and the number of its terms, which add up however they travel."""

from __future__ import annotations

from collections.abc import Iterable

ENV_STEP_MS = "perf/env_step_ms"  # of an agent step
Means = dict[str, tuple[float, int]]  # a metric to a sum and the number of its terms


def merge(parts: Iterable[Means]) -> Means:
    """The sums of all parts."""
    merged: Means = {}
    for part in parts:
        for name, (total, count) in part.items():
            before, terms = merged.get(name, (0.0, 0))
            merged[name] = (before + total, terms + count)
    return merged
