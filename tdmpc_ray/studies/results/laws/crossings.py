"""When runs first reach a threshold, and which thresholds a study's runs can tell apart.

As in "Value-Based Deep RL Scales Predictably" (arXiv 2502.04327): results are made monotone by isotonic
regression, so that neither a lucky evaluation nor a passing dip decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from tdmpc_ray.studies.results.scaling import Floats

MOST_THRESHOLDS = 4
_CROSSED = 0.7  # share of runs that reach the highest threshold
_MARGIN = 0.15  # of the way from the start to there, for the lowest one


class Curve(NamedTuple):
    """One run: `steps` rising, and its result at each, (points,)."""

    steps: Floats
    values: Floats


class Crossing(NamedTuple):
    """Steps after which a run has first reached a threshold; if it has not, those that it was given.

    Attributes:
        is_early: it was there at its first evaluation, and nobody knows since when.
    """

    steps: float
    is_reached: bool
    is_early: bool = False


def monotone(curve: Curve) -> Curve:
    """The same with the closest values that never fall."""
    return curve._replace(values=isotonic_regression(curve.values).x)


def crossing(curve: Curve, threshold: float) -> Crossing:
    """Where a monotone curve first reaches a threshold, on straight lines between evaluations."""
    above = np.flatnonzero(curve.values >= threshold)
    if not len(above):
        return Crossing(float(curve.steps[-1]), is_reached=False)
    first = above[0]
    if first == 0:
        return Crossing(float(curve.steps[0]), is_reached=True, is_early=True)
    ends = slice(first - 1, first + 1)
    return Crossing(float(np.interp(threshold, curve.values[ends], curve.steps[ends])), is_reached=True)


def choose_thresholds(curves: Sequence[Curve]) -> list[float]:
    """Up to `MOST_THRESHOLDS` round results, rising, between what monotone curves begin with and most reach.

    None where curves rise too little for that.
    """
    # What happens before the first evaluation is not seen.
    begins = [curve.values[1 if curve.steps[0] == 0 else 0] for curve in curves]
    start = max(float(np.median(begins)), *(float(curve.values[0]) for curve in curves))
    reached = float(np.quantile([curve.values[-1] for curve in curves], 1 - _CROSSED))
    if reached <= start:
        return []
    places = np.linspace(start + _MARGIN * (reached - start), reached, MOST_THRESHOLDS)
    step = 10.0 ** np.floor(np.log10((reached - start) / MOST_THRESHOLDS)) / 2
    rounded = {round(float(np.floor(place / step) * step), 12) for place in places}
    return sorted(value for value in rounded if value > start)
