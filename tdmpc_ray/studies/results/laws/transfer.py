"""How the best batch size and learning rate move with model size and ratio of updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tdmpc_ray.studies.results.laws.likelihood import Flags
from tdmpc_ray.studies.results.scaling import Floats, Interval

TUNED = ("update.batch_size", "update.lr")
_LEAST_FREEDOM = 1  # of a slope's interval


class Cell(NamedTuple):
    """The runs of one ratio and size.

    Attributes:
        place: ratio and parameters.
        tuned: each run's batch size and learning rate, NaN where the study has one, (R, 2).
        steps: to the threshold, or all that a run took, (R,).
        is_reached: (R,).
        rows: where the runs stand among all.
    """

    place: tuple[float, float]
    tuned: Floats
    steps: Floats
    is_reached: Flags
    rows: NDArray[np.int64]


class Transfer(NamedTuple):
    """best = factor * product over axes of place ** slope, with 95 % intervals of the slopes."""

    setting: str
    factor: float
    slopes: dict[str, float]
    intervals: dict[str, Interval]


def best_of(cell: Cell) -> tuple[Floats, Flags]:
    """The batch size and learning rate that took the fewest steps on geometric mean, and whose runs they are.

    Those that most runs have not reached the threshold with come last: all that they took is too little.
    """
    choices = np.unique(cell.tuned, axis=0)
    ranks = []
    for choice in choices:
        own = _is(cell.tuned, choice)
        ranks.append((-cell.is_reached[own].mean().round(6), np.log(cell.steps[own]).mean()))
    choice = choices[min(range(len(choices)), key=ranks.__getitem__)]
    return choice, _is(cell.tuned, choice)


def transfer_rules(cells: Sequence[Cell], axes: dict[str, int]) -> list[Transfer]:
    """Power laws through the best values of all cells, for each setting that varies.

    Args:
        cells: by ratio and parameters.
        axes: names of those that vary, and their place in `Cell.place`.
    """
    reached = [cell for cell in cells if cell.is_reached.any()]
    if len(reached) < len(axes) + 2:
        return []
    best = np.array([best_of(cell)[0] for cell in reached])
    x = np.log([[cell.place[k] for k in axes.values()] for cell in reached])
    rules = []
    for column, setting in enumerate(TUNED):
        values = {value for cell in reached for value in cell.tuned[:, column] if value == value}
        if len(values) > 1:
            rules.append(_rule(setting, list(axes), x, np.log(best[:, column])))
    return rules


def _rule(setting: str, axes: list[str], x: Floats, log_best: Floats) -> Transfer:
    terms = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    found, _, rank, _ = np.linalg.lstsq(terms, log_best)
    slopes = dict(zip(axes, map(float, found[1:]), strict=True))
    freedom = len(x) - terms.shape[1]
    intervals = dict.fromkeys(axes, Interval(float("nan"), float("nan")))
    if freedom >= _LEAST_FREEDOM and rank == terms.shape[1]:
        variance = ((log_best - terms @ found) ** 2).sum() / freedom
        errors = np.sqrt(variance * np.diag(np.linalg.inv(terms.T @ terms)))[1:]
        half = stats.t.ppf(0.975, freedom) * errors
        ends = zip(axes, found[1:] - half, found[1:] + half, strict=True)
        intervals = {axis: Interval(float(low), float(high)) for axis, low, high in ends}
    return Transfer(setting, float(np.exp(found[0])), slopes, intervals)


def _is(tuned: Floats, choice: Floats) -> Flags:
    return np.asarray(((tuned == choice) | (np.isnan(tuned) & np.isnan(choice))).all(axis=1))
