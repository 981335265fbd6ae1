"""The statistics on data with known answers."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

from tdmpc_ray.studies.results.analysis.sizes import law_sentence
from tdmpc_ray.studies.results.scaling import bootstrap_interval, fit_power_law, iqm

SIZES = np.array([1e6, 3e6, 1e7, 3e7, 1e8, 3e8])


def losses(noise: float, seeds: int, rng: np.random.Generator, sizes: np.ndarray = SIZES) -> list[np.ndarray]:
    """Values of 2 (N / 1e6)^-0.3 + 0.4 with log-normal noise."""
    truth = 2 * (sizes / 1e6) ** -0.3 + 0.4
    return [value * np.exp(noise * rng.standard_normal(seeds)) for value in truth]


def test_iqm_is_the_mean_of_the_middle_half() -> None:
    assert iqm([0, 1, 2, 3, 4, 5, 6, 1000]) == pytest.approx(3.5)
    assert iqm([[1.0, 2.0], [3.0, 4.0]]) == pytest.approx(2.5)
    assert iqm([7.0]) == 7.0


def test_one_seed_has_no_interval() -> None:
    assert all(math.isnan(end) for end in bootstrap_interval([[3.0]]))
    assert all(math.isnan(end) for end in bootstrap_interval([]))


def test_two_seeds_span_their_range() -> None:
    assert bootstrap_interval([[1.0, 2.0]]) == (1.0, 2.0)


def test_interval_agrees_with_the_normal_theory() -> None:
    sample = np.random.default_rng(0).normal(100, 10, 400)
    low, high = bootstrap_interval([sample], resamples=4000)
    half = 1.96 * sample.std() / math.sqrt(400)
    assert low == pytest.approx(sample.mean() - half, abs=0.15)
    assert high == pytest.approx(sample.mean() + half, abs=0.15)


def test_strata_are_resampled_on_their_own() -> None:
    # Two tasks far apart: the spread between tasks is no uncertainty of the mean over these tasks.
    rng = np.random.default_rng(1)
    groups = [rng.normal(0, 1, 20), rng.normal(1000, 1, 20)]
    low, high = bootstrap_interval(groups)
    assert 499 < low < 500.2 < 501
    assert high - low < 2
    pooled = bootstrap_interval([np.concatenate(groups)])
    assert pooled.high - pooled.low > 100


def test_coverage_of_the_interval() -> None:
    rng = np.random.default_rng(2)
    trials, n = 400, 20
    hits = {"mean": 0, "iqm": 0}
    for index in range(trials):
        sample = rng.normal(0, 1, n)
        for name, statistic in (("mean", np.mean), ("iqm", iqm)):
            low, high = bootstrap_interval([sample], statistic, resamples=400, seed=index)
            hits[name] += low <= 0 <= high
    for count in hits.values():
        # Percentile intervals of 20 values cover a little less than they promise: 93 % rather than 95 %.
        assert 0.89 < count / trials < 0.97


def test_iqm_resists_outliers_in_the_interval() -> None:
    sample = [*np.random.default_rng(3).normal(10, 1, 19), 1e6]
    low, high = bootstrap_interval([sample], iqm)
    assert 9 < low < high < 11


def test_power_law_is_found_again() -> None:
    law = fit_power_law(SIZES / 1e6, losses(0.02, 5, np.random.default_rng(0)), resamples=60)
    assert law.identifiable
    assert (law.a, law.b, law.c) == pytest.approx((2.0, 0.3, 0.4), rel=0.2)
    for name, truth in (("a", 2.0), ("b", 0.3), ("c", 0.4)):
        low, high = law.intervals[name]
        assert low <= truth <= high
    assert law(1.0) == pytest.approx(2.4, rel=0.05)
    assert "exponent" in law_sentence(law)


def test_power_law_without_noise_is_exact_in_any_unit() -> None:
    values = losses(0.0, 1, np.random.default_rng(0))
    for unit in (1.0, 1e6):
        law = fit_power_law(SIZES / unit, values, resamples=2)
        assert law.b == pytest.approx(0.3, abs=2e-3)
        assert law.c == pytest.approx(0.4, abs=5e-3)
        assert law(SIZES / unit) == pytest.approx(np.concatenate(values), rel=1e-3)


def test_one_broken_run_does_not_bend_the_law() -> None:
    values = losses(0.01, 3, np.random.default_rng(4))
    values[2][0] *= 4
    law = fit_power_law(SIZES / 1e6, values, resamples=2)
    straight = stats.linregress(np.log(SIZES), [np.log(value.mean()) for value in values])
    assert law.b == pytest.approx(0.3, abs=0.08)
    assert abs(-straight.slope - 0.3) > abs(law.b - 0.3)


@pytest.mark.parametrize("seeds", [1, 3])
def test_exponent_interval_covers_the_truth(seeds: int) -> None:
    hits = 0
    for index in range(12):
        values = losses(0.03, seeds, np.random.default_rng(index))
        low, high = fit_power_law(SIZES / 1e6, values, resamples=30, seed=index).intervals["b"]
        hits += low <= 0.3 <= high
    assert hits >= 9


def test_three_sizes_identify_nothing() -> None:
    law = fit_power_law(SIZES[:3], losses(0.0, 3, np.random.default_rng(0))[:3])
    assert not law.identifiable
    assert math.isnan(law.b)
    assert "3 sizes are too few" in law_sentence(law)
    repeated = fit_power_law([1, 2, 3, 3], [3.0, 2.0, 1.5, 1.4])
    assert not repeated.identifiable


def test_noise_alone_is_no_law() -> None:
    rng = np.random.default_rng(5)
    flat = [np.exp(0.1 * rng.standard_normal(3)) for _ in SIZES]
    law = fit_power_law(SIZES / 1e6, flat, resamples=30)
    assert not law.identifiable
    assert "do not identify a power law" in law_sentence(law)


@pytest.mark.parametrize(
    ("sizes", "values"), [([1, 2, 3, 4], [1, 2, 3]), ([0, 1, 2, 3], [1] * 4), ([1, 2, 3, 4], [1, 1, -1, 1])]
)
def test_bad_data_is_refused(sizes: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"groups of values|positive"):
        fit_power_law(sizes, values)


def test_a_fit_with_intervals_takes_seconds() -> None:
    began = time.process_time()
    fit_power_law(SIZES / 1e6, losses(0.02, 3, np.random.default_rng(0)), resamples=50)
    assert time.process_time() - began < 20
