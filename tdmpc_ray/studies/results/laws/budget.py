"""What it costs to reach a threshold, and which model size and ratio of updates are the cheapest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize

from tdmpc_ray.studies.results.laws.data_law import DataLaw
from tdmpc_ray.studies.results.scaling import Floats, Interval

POINTS = 61  # of a grid along each axis
_AT_END = 0.02  # of an axis: a best place this near to its end may lie beyond


@dataclass(frozen=True)
class Prices:
    """What a step costs at a size and ratio, as measured in a study.

    Attributes:
        log_params: logarithms of the sizes' parameters, rising, (S,).
        log_update: logarithms of FLOPs of one update, (S,).
        log_plan: the same of one decision; -inf where none are made, (S,).
        seconds: of wall time, a part for each step and a part for each FLOP.
        simulation_s: seconds of the simulator for one step.
    """

    log_params: Floats
    log_update: Floats
    log_plan: Floats
    seconds: tuple[float, float]
    simulation_s: float

    @property
    def step_price(self) -> float:
        """FLOPs that the hardware does while the simulator takes a step; 0 where that is not known."""
        per_flop = self.seconds[1]
        return self.simulation_s / per_flop if per_flop > 0 else 0.0

    def flops(self, ratio: Floats, params: Floats) -> Floats:
        """Of the updates and the decision that come with one step."""
        logs = np.log(params)
        update = np.exp(np.interp(logs, self.log_params, self.log_update))
        return np.asarray(ratio * update + np.exp(np.interp(logs, self.log_params, self.log_plan)))

    def hours(self, steps: Floats, flops: Floats) -> Floats:
        """Of wall time, on what the study ran on, for all `steps` of `flops` each."""
        return np.asarray(steps * (self.seconds[0] + self.seconds[1] * flops) / 3600)


class Best(NamedTuple):
    """The cheapest way to a threshold, with 95 % intervals over the law's refits where there are any.

    Attributes:
        ratio, params, steps, flops, hours: of the fitted law.
        intervals: of each of these names.
        at_end: axes whose best place is the end of what was tried.
    """

    ratio: float
    params: float
    steps: float
    flops: float
    hours: float
    intervals: dict[str, Interval]
    at_end: tuple[str, ...]


class Grid(NamedTuple):
    """Places to choose from: `ratio` and `params` of each, (P,), over a grid of `shape`."""

    ratio: Floats
    params: Floats
    shape: tuple[int, int]

    def places(self, law: DataLaw) -> Floats:
        """As places of a law."""
        return places_on(law, {"ratio": self.ratio, "parameters": self.params})


def grid_of(ratios: Floats, params: Floats) -> Grid:
    """Evenly spaced in logarithms over what was tried, one point on an axis that has one value."""
    lines = [np.geomspace(x.min(), x.max(), POINTS if x.min() < x.max() else 1) for x in (ratios, params)]
    ratio, param = (line.ravel() for line in np.meshgrid(*lines, indexing="ij"))
    return Grid(ratio, param, (len(lines[0]), len(lines[1])))


def seconds_per_step(flops: Floats, seconds: Floats) -> tuple[float, float]:
    """Of a step, and of each FLOP that comes with it: non-negative least squares over runs, (R,) each."""
    if not len(flops):
        return float("nan"), float("nan")
    terms = np.stack([np.ones_like(flops), flops], axis=1) / seconds[:, None]
    unit = terms.max(axis=0)
    found, _ = optimize.nnls(terms / unit, np.ones(len(flops)))
    return float(found[0] / unit[0]), float(found[1] / unit[1])


def places_on(law: DataLaw, columns: Mapping[str, Floats]) -> Floats:
    """Places of a law, (P, K), of columns by the names of axes, (P,) each; it may lack some of them."""
    return np.stack([np.asarray(columns[axis], dtype=float) for axis in law.axes], axis=1)


def cheapest(law: DataLaw, prices: Prices, grid: Grid, step_price: float) -> Best:
    """The place of a grid where a law's threshold costs the fewest FLOPs.

    Args:
        law: steps to the threshold.
        prices: of what a step brings with it.
        grid: places.
        step_price: FLOPs that one environment step is worth beside them.
    """
    places = grid.places(law)
    each = prices.flops(grid.ratio, grid.params)
    steps = law(places)
    index = int(np.argmin(steps * (each + step_price)))
    own = _numbers(index, steps, each, prices, grid)
    samples = law.sampled(places)
    choices = (samples * (each + step_price)).argmin(axis=1)
    rows = [_numbers(int(k), sample, each, prices, grid) for k, sample in zip(choices, samples, strict=True)]
    intervals = {
        name: Interval(*map(float, np.quantile([row[name] for row in rows], [0.025, 0.975]))) for name in own
    }
    return Best(**own, intervals=intervals, at_end=_ends(index, grid))


def _numbers(index: int, steps: Floats, each: Floats, prices: Prices, grid: Grid) -> dict[str, float]:
    taken, flops = steps[index], each[index]
    return {
        "ratio": float(grid.ratio[index]),
        "params": float(grid.params[index]),
        "steps": float(taken),
        "flops": float(taken * flops),
        "hours": float(prices.hours(taken, flops)),
    }


def _ends(index: int, grid: Grid) -> tuple[str, ...]:
    found = []
    for axis, place, size in zip(
        ("ratio", "parameters"), np.unravel_index(index, grid.shape), grid.shape, strict=True
    ):
        share = place / (size - 1) if size > 1 else 0.5
        if share < _AT_END or share > 1 - _AT_END:
            found.append(axis)
    return tuple(found)
