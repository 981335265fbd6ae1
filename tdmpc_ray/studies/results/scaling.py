"""Statistics of few seeds: interquartile mean, bootstrap intervals, a power law with its uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]

MIN_SIZES = 4  # three parameters of the law need more points than that
_ROBUST_SCALE = 0.05  # residuals in log space beyond this count linearly: about 5 % of the value
_MAX_EXPONENT = 5.0


class Interval(NamedTuple):
    """A confidence interval; NaN where the data give none."""

    low: float
    high: float


ANY = Interval(float("-inf"), float("inf"))  # no bounds
MIN_TRIMMED = 4  # values; of fewer the interquartile mean cuts none off


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean of the middle half of all values; of fewer than four, their mean.

    Agarwal et al., "Deep RL at the edge of the statistical precipice" (2021).
    """
    return float(stats.trim_mean(np.asarray(values, dtype=float).ravel(), 0.25))


def mean_interval(values: ArrayLike, bounds: Interval = ANY, *, level: float = 0.95) -> Interval:
    """Student's t interval of the mean of seeds, as far as it lies within `bounds`; NaN for one seed.

    With two to ten values a percentile bootstrap is far too narrow: for three it covers 73 %, not 95 %.
    """
    sample = np.asarray(values, dtype=float).ravel()
    if len(sample) < 2:
        return Interval(float("nan"), float("nan"))
    half = stats.t.ppf((1 + level) / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample))
    low, high = max(sample.mean() - half, bounds.low), min(sample.mean() + half, bounds.high)
    return Interval(float(low), float(high))


def bootstrap_interval(
    groups: Sequence[ArrayLike],
    statistic: Callable[..., Any] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic of all values, resampled within each group.

    Args:
        groups: one array of seeds' results per task (stratum).
        statistic: of a flat array, with `axis`: `np.median`, or `iqm` itself. `np.mean` is the mean over
            groups of their means, so that each weighs alike.
        level: coverage aimed at. With fewer than ten or so seeds the real coverage is below it.
        resamples: bootstrap samples.
        seed: of the resampling.

    Returns:
        The interval; NaN where no group has two values, because one seed says nothing about its spread.
    """
    samples = [np.asarray(group, dtype=float).ravel() for group in groups]
    if not samples or max(len(sample) for sample in samples) < 2:
        return Interval(float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    drawn = [sample[rng.integers(0, len(sample), (resamples, len(sample)))] for sample in samples]
    pooled = np.concatenate(drawn, axis=1)  # (resamples, all values)
    if statistic is np.mean:
        estimates = np.mean([values.mean(axis=1) for values in drawn], axis=0)
    else:
        estimates = stats.trim_mean(pooled, 0.25, axis=1) if statistic is iqm else statistic(pooled, axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class PowerLaw:
    """L(N) = a * N^(-b) + c, with what the data say about it."""

    a: float
    b: float
    c: float
    intervals: dict[str, Interval]  # of a, b and c
    identifiable: bool
    reason: str  # why it is not identifiable; empty if it is
    samples: Floats = field(repr=False)  # logarithms of a, b, c of the bootstrap fits, (resamples, 3)

    def __call__(self, sizes: ArrayLike) -> Floats:
        return _law(np.log([self.a, self.b, max(self.c, 1e-300)]), np.asarray(sizes, dtype=float))

    def band(self, sizes: ArrayLike) -> tuple[Floats, Floats]:
        """Ends of the pointwise 95% interval of the law at `sizes`, from the bootstrap fits."""
        laws = [_law(sample, np.asarray(sizes, dtype=float)) for sample in self.samples]
        low, high = np.quantile(laws, [0.025, 0.975], axis=0)
        return low, high


def fit_power_law(
    sizes: Sequence[float], values: Sequence[ArrayLike], *, resamples: int = 200, seed: int = 0
) -> PowerLaw:
    """Fit L(N) = a * N^(-b) + c with a, b, c > 0 to losses (smaller is better).

    Least squares in log space with a robust loss, from several starts. Intervals by bootstrap of the
    residuals of all sizes together: resampling two or three seeds within their size is far too narrow.

    Args:
        sizes: N of each size, such as parameters or FLOPs.
        values: losses per size: a number, or one per seed; all positive. For returns, use the gap to the
            best possible return.
        resamples: bootstrap fits.
        seed: of the resampling.

    Returns:
        The law. `identifiable` is False with fewer than four sizes (the numbers are NaN then), or where the
        interval of the exponent leaves it open whether size matters at all.

    Raises:
        ValueError: lengths differ, or a size or value is not positive.
    """
    groups = [np.asarray(value, dtype=float).ravel() for value in values]
    n = np.asarray(sizes, dtype=float)
    if len(n) != len(groups):
        raise ValueError(f"{len(n)} sizes but {len(groups)} groups of values")
    if len(n) == 0 or n.min() <= 0 or any(len(group) == 0 or group.min() <= 0 for group in groups):
        raise ValueError("a power law needs positive sizes and values, at least one value per size")
    distinct = len(np.unique(n))
    if distinct < MIN_SIZES:
        nan = float("nan")
        nothing = Interval(nan, nan)
        reason = f"{distinct} sizes are too few for its three parameters, at least {MIN_SIZES} are needed"
        return PowerLaw(nan, nan, nan, dict.fromkeys("abc", nothing), False, reason, np.empty((0, 3)))
    x = np.concatenate([np.full(len(g), size) for size, g in zip(n, groups, strict=True)])
    y = np.concatenate(groups)
    best = _fit(x, y, _starts(x, y))
    samples = _bootstrap_fits(x, y, best, resamples, np.random.default_rng(seed))
    intervals = {
        name: Interval(*(float(q) for q in np.quantile(np.exp(samples[:, index]), [0.025, 0.975])))
        for index, name in enumerate("abc")
    }
    reason = ""
    low, high = intervals["b"]
    if low < 0.01 or high > 0.9 * _MAX_EXPONENT:
        reason = f"the exponent lies anywhere between {low:.2g} and {high:.2g}"
    a, b, c = (float(value) for value in np.exp(best))
    return PowerLaw(a, b, c, intervals, not reason, reason, samples)


def _law(log_abc: ArrayLike, n: Floats) -> Floats:
    a, b, c = np.exp(np.asarray(log_abc, dtype=float))
    return np.asarray(a * n**-b + c)


def _starts(x: Floats, y: Floats) -> list[Floats]:
    """Starts from straight lines in log-log space, for several guesses of the floor c."""
    starts = []
    for share in (0.0, 0.5, 0.9, 0.99):
        floor = share * y.min()
        slope, intercept = np.polyfit(np.log(x), np.log(np.maximum(y - floor, 1e-3 * y.min())), 1)
        b = min(max(-slope, 0.02), _MAX_EXPONENT / 2)
        starts.append(
            np.array([intercept - (slope + b) * np.log(x).mean(), np.log(b), np.log(floor + 1e-3 * y.min())])
        )
    return starts


def _fit(x: Floats, y: Floats, starts: Sequence[Floats]) -> Floats:
    log_y = np.log(y)
    # Against exp overflow on the way; wide enough for any law over the sizes at hand.
    low = np.array([-50.0, np.log(1e-4), np.log(y.min()) - 25])
    high = np.array([200.0, np.log(_MAX_EXPONENT), np.log(y.max())])

    def residuals(theta: Floats) -> Floats:
        return np.log(_law(theta, x)) - log_y

    def jacobian(theta: Floats) -> Floats:
        a, b, c = np.exp(theta)
        decay = a * x**-b
        return np.stack([decay, -b * np.log(x) * decay, np.full_like(x, c)], axis=1) / (decay + c)[:, None]

    fits = [
        optimize.least_squares(
            residuals,
            np.clip(start, low + 1e-6, high - 1e-6),
            jac=jacobian,
            bounds=(low, high),
            loss="soft_l1",
            f_scale=_ROBUST_SCALE,
            x_scale="jac",
            max_nfev=100,  # along the flat valley of data without a law, more brings nothing
            ftol=1e-7,
            xtol=1e-7,
        )
        for start in starts
    ]
    return np.asarray(min(fits, key=lambda fit: fit.cost).x)


def _bootstrap_fits(x: Floats, y: Floats, best: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Log parameters of refits to the fitted law plus resampled residuals, (resamples, 3)."""
    fitted = np.log(_law(best, x))
    # Three parameters have eaten a part of the spread, and Student's t stands for how badly few residuals
    # tell it: without both, six sizes of one seed cover the true exponent 75 % of the time, not 95 %.
    freedom = max(len(y) - 3, 1)
    widening = np.sqrt(len(y) / freedom) * stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)
    residuals = (np.log(y) - fitted) * widening
    fits = []
    for _ in range(resamples):
        drawn = np.exp(fitted + rng.choice(residuals, len(residuals)))
        fits.append(_fit(x, drawn, [best, _starts(x, drawn)[1]]))
    return np.array(fits)
