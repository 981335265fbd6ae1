"""Scores of several tasks on one scale, and what few runs say about them (Agarwal et al., 2021).

"Deep RL at the edge of the statistical precipice": runs are resampled within each task, never across tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tdmpc_ray.envs.catalog import task_info
from tdmpc_ray.errors import UserError
from tdmpc_ray.studies.results.scaling import ANY, Floats, Interval

RESAMPLES = 2000
_BEST_SCORE = 100.0  # a tenth of DMControl's returns, and success in hundredths
DMCONTROL_BEST = 1000.0  # each of 1000 frames is worth at most 1


class Scale(NamedTuple):
    """How a task's results become scores: 0 at `low`, 1 at `high`.

    Attributes:
        has_ceiling: `high` is the best that is possible, so that 1 - score is the gap to it.
        words: the rule, for a reader.
    """

    low: float
    high: float
    has_ceiling: bool
    words: str

    def scores(self, values: ArrayLike) -> Floats:
        """Results as scores."""
        return (np.asarray(values, dtype=float) - self.low) / (self.high - self.low)


def result_bounds(task: str, metric: str) -> Interval:
    """Between which values a task's results lie; infinite ends where that is not known."""
    if metric.endswith("success"):
        return Interval(0.0, 1.0)
    if metric.endswith("score"):
        return Interval(0.0, _BEST_SCORE)
    if metric.rpartition("/")[2] in ("return", "return_min", "return_max") and _suite(task) == "dmcontrol":
        return Interval(0.0, DMCONTROL_BEST)
    return ANY


def score_scale(task: str, metric: str, values: ArrayLike, random_return: float | None = None) -> Scale:
    """The scale of one task.

    Args:
        task: its name.
        metric: what the values are of.
        values: the final results of all runs on the task; not empty.
        random_return: the random policy's; None where not known.
    """
    if metric.endswith("success"):
        return Scale(0.0, 1.0, True, "success rate as it is")
    if metric.endswith("score"):
        return Scale(0.0, _BEST_SCORE, True, "normalised score / 100")
    if result_bounds(task, metric) != ANY:
        return Scale(0.0, DMCONTROL_BEST, True, "return / 1000")
    found = np.asarray(values, dtype=float)
    worst, best = float(found.min()), float(found.max())
    if random_return is not None and random_return < best:
        return Scale(random_return, best, False, "0 for the random policy, 1 for the best run here")
    if worst < best:
        return Scale(worst, best, False, "0 for the worst run here, 1 for the best")
    return Scale(worst, worst + 1, False, "all runs are equal")


def _suite(task: str) -> str:
    try:
        info = task_info(task)
        suites = {task_info(member).suite for member in info.tasks} or {info.suite}
    except UserError:  # a task of somebody else's
        return ""
    return suites.pop() if len(suites) == 1 else ""


def performance_profile(
    strata: Sequence[ArrayLike],
    levels: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Floats, Floats, Floats]:
    """Share of runs whose score is above each level, tasks weighted alike, with a pointwise bootstrap band.

    Args:
        strata: scores of the runs, one array per task.
        levels: scores to compare with, (levels,).
        confidence: coverage aimed at.
        resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        Shares and the ends of their band, each (levels,).
    """
    tau = np.asarray(levels, dtype=float)
    shares = np.mean([_shares(_row(stratum), tau)[0] for stratum in strata], axis=0)
    rng = np.random.default_rng(seed)
    drawn = np.mean([_shares(_draw(s, resamples, rng), tau) for s in strata], axis=0)  # (resamples, levels)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return shares, low, high


def probability_of_improvement(
    strata: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, Interval]:
    """How probable it is that a run of X beats a run of Y on the same task; ties count one half.

    The Mann-Whitney statistic over the number of pairs, averaged over tasks, with a percentile bootstrap
    interval that resamples both within each task.

    Args:
        strata: scores of X and of Y, a pair per task.
        confidence: coverage aimed at; with fewer than ten or so runs the real coverage is below it.
        resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        The probability and its interval; NaN ends where X or Y has one run on every task.
    """
    value = float(np.mean([_wins(_row(x), _row(y))[0] for x, y in strata]))
    if max(min(np.size(x), np.size(y)) for x, y in strata) < 2:
        return value, Interval(float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    drawn = np.mean([_wins(_draw(x, resamples, rng), _draw(y, resamples, rng)) for x, y in strata], axis=0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return value, Interval(float(low), float(high))


def _row(values: ArrayLike) -> Floats:
    return np.asarray(values, dtype=float).reshape(1, -1)


def _draw(values: ArrayLike, resamples: int, rng: np.random.Generator) -> Floats:
    """Samples with replacement, (resamples, values)."""
    sample = np.asarray(values, dtype=float).ravel()
    picked: Floats = sample[rng.integers(0, len(sample), (resamples, len(sample)))]
    return picked


def _shares(scores: Floats, levels: Floats) -> Floats:
    """(samples, runs) and (levels,) to (samples, levels)."""
    return np.stack([(scores > level).mean(axis=1) for level in levels], axis=1)


def _wins(x: Floats, y: Floats) -> NDArray[np.float64]:
    """Share of pairs that x wins, per sample: (samples, n) and (samples, m) to (samples,)."""
    left, right = x[:, :, None], y[:, None, :]
    return np.asarray(((left > right) + 0.5 * (left == right)).mean(axis=(1, 2)))
