"""Data to a threshold as a law of model size and ratio of updates, with what the runs say about it.

D(r, N) = D_min + (a / r)^alpha + (b / N)^beta (arXiv 2508.14881), over one of both where a study varies one;
with terms at the centre instead of a and b, which are in no unit: (a / r)^alpha = term * (r / centre)^-alpha.
Runs that have not reached the threshold count as such: it would have taken them more than they had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from tdmpc_ray.studies.results.laws.likelihood import (
    EXPONENTS,
    Box,
    Data,
    Fits,
    Flags,
    box_of,
    fit_rows,
    log_law,
    start_points,
)
from tdmpc_ray.studies.results.scaling import Floats, Interval

LEAST_PLACES = 3  # on an axis, of several
LEAST_ALONE = 4
RESAMPLES = 200
_PLURALS = {"ratio": "ratios", "parameters": "sizes"}
_REFIT_ROUNDS = 30
_LEVEL = 0.95
_MOST_EARLY = 0.1  # share of runs of which nobody knows since when they are there
_MATTERS = 0.05  # of the test that an axis changes anything
_POINTS = 24  # of a parameter's profile
_WIDEST = 10.0  # times; an interval of a positive parameter that is wider does not identify it


class Observations(NamedTuple):
    """What runs took to a threshold.

    Attributes:
        axes: names of what was varied, K.
        places: where each of R runs stands on them, positive, (R, K).
        steps: to the threshold; of a run that has not reached it, all that it took, (R,).
        is_reached: whether it has, (R,).
        limits: steps that the run had, (R,).
        is_early: whether it was there at its first evaluation, (R,).
    """

    axes: tuple[str, ...]
    places: Floats
    steps: Floats
    is_reached: Flags
    limits: Floats
    is_early: Flags

    @property
    def columns(self) -> dict[str, Floats]:
        """Places by axis, (R,) each."""
        return dict(zip(self.axes, self.places.T, strict=True))

    def without(self, axis: str) -> Observations:
        """The same runs, told apart by the other axes alone."""
        k = self.axes.index(axis)
        axes = tuple(name for name in self.axes if name != axis)
        return self._replace(axes=axes, places=np.delete(self.places, k, axis=1))

    def only(self, rows: Flags) -> Observations:
        """Some of the runs."""
        return self._replace(
            places=self.places[rows],
            steps=self.steps[rows],
            is_reached=self.is_reached[rows],
            limits=self.limits[rows],
            is_early=self.is_early[rows],
        )


@dataclass(frozen=True)
class DataLaw:
    """A fitted law.

    Attributes:
        axes: names of what was varied.
        centre: means of the logarithms of places, (K,).
        theta: parameters, see `likelihood`.
        spread: standard deviation of the logarithm of one run's steps, as seen; and as it has to be taken for
            forecasts of others, because few runs tell it badly: `luck`.
        samples: parameters of refits to simulated runs, (samples, P).
        intervals: 95 %, of `floor` and of each axis' term at its centre (steps) and exponent: `term of NAME`,
            `exponent of NAME`.
        doubts: why parameters are not identified; empty where all are.
    """

    axes: tuple[str, ...]
    centre: Floats
    theta: Floats
    spread: float
    luck: float
    samples: Floats = field(repr=False)
    intervals: dict[str, Interval]
    doubts: tuple[str, ...]

    @property
    def parameters(self) -> dict[str, float]:
        """By the names of `intervals`."""
        return dict(zip(_names(self.axes), map(float, np.exp(self.theta)), strict=True))

    def __call__(self, places: ArrayLike) -> Floats:
        """Steps at places (P, K), the median over runs: (P,)."""
        return np.exp(log_law(self.theta[None], self._logs(places))[0])

    def sampled(self, places: ArrayLike) -> Floats:
        """The same of each refit, (samples, P)."""
        return np.exp(log_law(self.samples, self._logs(places)))

    def _logs(self, places: ArrayLike) -> Floats:
        return np.asarray(np.log(np.asarray(places, dtype=float)) - self.centre)


def fit_data_law(seen: Observations, *, resamples: int = RESAMPLES, seed: int = 0) -> DataLaw | str:
    """Fit the law, or say why the runs do not tell one.

    Maximum likelihood of log-normal steps from a grid of starts. Bands come from a bootstrap over runs: steps
    of all are drawn anew around the law, and end where the run did. Intervals of parameters are those of the
    profile likelihood, as the floor and the exponents of few runs are far from normal.

    Args:
        seen: at least `LEAST_PLACES` places on each axis, `LEAST_ALONE` where there is one.
        resamples: refits.
        seed: of the drawing.
    """
    if reason := _too_few(seen):
        return reason
    logs = np.log(seen.places)
    centre = logs.mean(axis=0)
    data = Data(logs - centre, np.log(seen.steps)[None], ~seen.is_reached[None])
    best, other = _best(data)
    idle = _idle(seen.axes, data, best)
    if idle and len(idle) < len(seen.axes):
        rest = fit_data_law(seen.without(idle[0]), resamples=resamples, seed=seed)
        return (
            f"steps do not depend on {idle[0]} beyond chance, and {rest}" if isinstance(rest, str) else rest
        )
    if idle:
        if len(seen.axes) > 1 and _matters(data, best, list(range(len(seen.axes)))):
            return f"{' and '.join(seen.axes)} vary together, and cannot be told apart"
        return f"steps do not depend on {' or '.join(idle)} beyond chance"
    luck = float(best.spread[0]) * _widening(data, best)
    samples = _refits(seen, data, best, other, luck, resamples, np.random.default_rng(seed))
    intervals = _profiles(seen.axes, data, best, samples)
    law = DataLaw(seen.axes, centre, best.theta[0], float(best.spread[0]), luck, samples, intervals, ())
    return replace(law, doubts=_doubts(law, float(seen.steps[seen.is_reached].min())))


def _names(axes: Sequence[str]) -> list[str]:
    return ["floor", *(f"{what} of {axis}" for axis in axes for what in ("term", "exponent"))]


def _too_few(seen: Observations) -> str:
    least = LEAST_ALONE if len(seen.axes) == 1 else LEAST_PLACES
    for k, axis in enumerate(seen.axes):
        reached = len(np.unique(seen.places[seen.is_reached, k]))
        if reached < least:
            return f"{reached} {_PLURALS.get(axis, axis)} reach it, and at least {least} are needed"
    early, reached = int(seen.is_early.sum()), int(seen.is_reached.sum())
    if early > _MOST_EARLY * reached:
        return f"{early} of {reached} runs are there at their first evaluation: evaluate more often"
    return ""


def _best(data: Data) -> tuple[Fits, Floats]:
    """The best fit, as one row, and the parameters of another one for refits to begin at."""
    box = box_of(data.log_steps, data.x.shape[1])
    starts = start_points(data, box)
    fits = fit_rows(starts, data.repeated(len(starts)), box)
    order = np.argsort(fits.loss)
    best = Fits(*(values[order[:1]] for values in fits))
    return best, fits.theta[order[len(order) // 2]]


def _idle(axes: Sequence[str], data: Data, best: Fits) -> list[str]:
    """Axes that the steps do not depend on beyond chance."""
    return [axis for k, axis in enumerate(axes) if not _matters(data, best, [k])]


def _matters(data: Data, best: Fits, columns: Sequence[int]) -> bool:
    """Whether a law without some axes is worse, by a likelihood-ratio test with few runs in mind."""
    num_seen, num = int((~data.is_beyond).sum()), best.theta.shape[1]
    freedom, left_out = max(num_seen - num, 1), 2 * len(columns)
    rest = Data(np.delete(data.x, columns, axis=1), data.log_steps, data.is_beyond)
    box = box_of(data.log_steps, rest.x.shape[1])
    starts = start_points(rest, box)
    loss = fit_rows(starts, rest.repeated(len(starts)), box).loss.min()
    gain = np.expm1(2 * (loss - best.loss[0]) / num_seen) * freedom / left_out
    return bool(stats.f.sf(max(gain, 0.0), left_out, freedom) <= _MATTERS)


def _widening(data: Data, best: Fits) -> float:
    """By how much the spread is too small: the parameters have eaten a part, and few runs tell it badly."""
    num_seen = int((~data.is_beyond).sum())
    freedom = max(num_seen - best.theta.shape[1], 1)
    return float(np.sqrt(num_seen / freedom) * stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975))


def _refits(
    seen: Observations,
    data: Data,
    best: Fits,
    other: Floats,
    luck: float,
    resamples: int,
    rng: np.random.Generator,
) -> Floats:
    middle = log_law(best.theta, data.x)
    drawn = middle + luck * rng.standard_normal((resamples, middle.shape[1]))
    limits = np.log(np.maximum(seen.limits, seen.steps))
    again = Data(data.x, np.minimum(drawn, limits), drawn > limits)
    box = box_of(data.log_steps, data.x.shape[1])
    ways = [
        fit_rows(np.tile(start, (resamples, 1)), again, box, rounds=_REFIT_ROUNDS)
        for start in (best.theta[0], other)
    ]
    return np.where((ways[0].loss <= ways[1].loss)[:, None], ways[0].theta, ways[1].theta)


def _profiles(axes: Sequence[str], data: Data, best: Fits, samples: Floats) -> dict[str, Interval]:
    """Of each parameter, what the likelihood does not exclude when all others are fitted to it."""
    num_seen, num = int((~data.is_beyond).sum()), best.theta.shape[1]
    freedom = max(num_seen - num, 1)
    allowed = 0.5 * num_seen * np.log1p(stats.f.ppf(_LEVEL, 1, freedom) / freedom)
    box = box_of(data.log_steps, len(axes))
    found: dict[str, Interval] = {}
    for index, name in enumerate(_names(axes)):
        own = best.theta[0, index]
        grid = _grid(own, samples[:, index], (box.low[index], box.high[index]))
        loss = _profile(index, grid, data, best, samples, box)
        low, high = _within(grid, loss - best.loss[0] - allowed, own)
        found[name] = Interval(float(np.exp(low)), float(np.exp(high)))
    return found


def _grid(own: float, samples: Floats, ends: tuple[float, float]) -> Floats:
    near = own + (samples.std() + 1e-3) * np.linspace(-4, 4, _POINTS)
    return np.unique(np.clip(np.concatenate([near, np.linspace(*ends, _POINTS // 2), [own]]), *ends))


def _profile(index: int, grid: Floats, data: Data, best: Fits, samples: Floats, box: Box) -> Floats:
    """The least loss at each value of one parameter, (grid,)."""
    rows = len(grid)
    low, high = np.tile(box.low, (rows, 1)), np.tile(box.high, (rows, 1))
    low[:, index] = high[:, index] = grid
    losses = [
        fit_rows(np.tile(start, (rows, 1)), data.repeated(rows), Box(low, high), _REFIT_ROUNDS).loss
        for start in (best.theta[0], samples[0], samples[-1])
    ]
    return np.min(losses, axis=0)


def _within(grid: Floats, excess: Floats, own: float) -> tuple[float, float]:
    """Ends of where `excess` is not positive around `own`, on straight lines in between."""
    inside = np.flatnonzero(excess <= 0)
    if not len(inside):
        return own, own
    first, last = inside[0], inside[-1]
    low, high = grid[first], grid[last]
    if first > 0:
        low = np.interp(0, excess[[first, first - 1]], grid[[first, first - 1]])
    if last + 1 < len(grid):
        high = np.interp(0, excess[[last, last + 1]], grid[[last, last + 1]])
    return float(low), float(high)


def _doubts(law: DataLaw, least_steps: float) -> tuple[str, ...]:
    """Of each parameter, what is wrong with its interval."""
    found = []
    for name, (low, high) in law.intervals.items():
        if name == "floor" and high < 0.5 * least_steps:
            continue  # too small to matter is known well enough
        at_end = name.startswith("exponent") and (low < 1.5 * EXPONENTS[0] or high > 0.9 * EXPONENTS[1])
        if at_end or high > _WIDEST * low:
            found.append(f"the {name} lies anywhere between {low:.2g} and {high:.2g}")
    return tuple(found)
