"""Scores, profiles and the probability of improvement on data with known answers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tdmpc_ray.studies.results.importance import importance
from tdmpc_ray.studies.results.scaling import fit_power_law
from tdmpc_ray.studies.results.statistics import performance_profile, probability_of_improvement, score_scale


@pytest.mark.parametrize(
    ("task", "metric", "random", "scores", "has_ceiling"),
    [
        ("walker-walk", "eval/return", 40.0, [0.2, 0.6], True),
        ("mw-reach", "eval/success", None, [200.0, 600.0], True),
        ("mw-reach", "eval/return", 100.0, [0.2, 1.0], False),
        ("somebody-elses", "eval/return", None, [0.0, 1.0], False),
        ("somebody-elses", "eval/return", 700.0, [0.0, 1.0], False),  # nothing beats the random policy
    ],
)
def test_results_become_scores(
    task: str, metric: str, random: float | None, scores: list[float], has_ceiling: bool
) -> None:
    scale = score_scale(task, metric, [200.0, 600.0], random)
    assert scale.scores([200.0, 600.0]).tolist() == pytest.approx(scores)
    assert scale.has_ceiling == has_ceiling


def test_equal_results_have_a_score() -> None:
    assert score_scale("gym:Pendulum-v1", "eval/return", [-5.0, -5.0]).scores([-5.0]).tolist() == [0.0]


def test_a_profile_counts_runs_above_each_level_with_tasks_alike() -> None:
    strata = [[0.1, 0.9], [0.5, 0.5, 0.5, 0.7]]
    shares, low, high = performance_profile(strata, [0.0, 0.5, 0.6, 0.9])
    assert shares.tolist() == pytest.approx([1.0, (0.5 + 0.25) / 2, (0.5 + 0.25) / 2, 0.0])
    assert (low <= shares).all()
    assert (shares <= high).all()
    assert (low[0], high[0]) == (1.0, 1.0)


def test_the_probability_of_improvement_is_mann_whitneys() -> None:
    assert probability_of_improvement([([3.0, 4.0], [1.0, 2.0])]) == (1.0, (1.0, 1.0))
    value, (low, high) = probability_of_improvement([([1.0, 2.0], [1.0, 2.0])])
    assert value == 0.5
    assert low < 0.5 < high
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 9).astype(float), rng.integers(0, 5, 7).astype(float)
    expected = stats.mannwhitneyu(x, y).statistic / (9 * 7)
    assert probability_of_improvement([(x, y)])[0] == pytest.approx(expected)
    # Tasks are averaged: 1 on one, 1/4 on the other.
    assert probability_of_improvement([([2.0], [1.0]), ([1.0, 2.0], [2.0, 3.0])])[0] == pytest.approx(0.5625)


def test_one_run_each_has_no_interval() -> None:
    value, interval = probability_of_improvement([([2.0], [1.0])])
    assert value == 1.0
    assert all(math.isnan(end) for end in interval)


def test_intervals_cover_the_truth() -> None:
    """Of the 95 % aimed at, 1,000 samples of 12 runs on each of two tasks cover 93 % (probability) and 96 %
    (profile); of 5 runs 93 % and 93 %, of 3 runs 86 % and 93 %.
    """
    rng = np.random.default_rng(1)
    samples, runs = 300, 12
    truth = stats.norm.cdf(0.5 / math.sqrt(2))  # of x ~ N(0.5, 1) beating y ~ N(0, 1)
    hits = {"profile": 0, "probability": 0}
    for index in range(samples):
        x, y = rng.normal(0.5, 1, (2, runs)), rng.normal(0, 1, (2, runs))
        _, (low, high) = probability_of_improvement(list(zip(x, y, strict=True)), resamples=300, seed=index)
        hits["probability"] += low <= truth <= high
        _, below, above = performance_profile(list(y), [0.0], resamples=300, seed=index)
        hits["profile"] += below[0] <= 0.5 <= above[0]
    for count in hits.values():
        assert 0.89 < count / samples < 0.985


def test_the_band_of_a_law_holds_it() -> None:
    sizes = np.array([1e6, 3e6, 1e7, 3e7, 1e8])
    rng = np.random.default_rng(0)
    gaps = [0.8 * (n / 1e6) ** -0.3 * np.exp(0.02 * rng.standard_normal(3)) for n in sizes]
    law = fit_power_law(sizes, gaps, resamples=40)
    low, high = law.band(sizes)
    assert (low < law(sizes)).all()
    assert (law(sizes) < high).all()
    truth = 0.8 * (sizes / 1e6) ** -0.3
    assert ((low < truth) & (truth < high)).all()


def points(number: int) -> tuple[pd.DataFrame, pd.Series]:
    """Score = -|log10 lr + 3|, an optimum in the middle, and a setting and a word that do nothing."""
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "seedling": rng.uniform(size=number),
            "lr": 10 ** rng.uniform(-4, -2, number),
            "word": rng.choice(["a", "b"], number),
        }
    )
    return table, -(np.log10(table["lr"]) + 3).abs() + 0.01 * rng.standard_normal(number)


def test_a_forest_finds_what_matters() -> None:
    table, score = points(60)
    found = importance(table, score)
    assert found.method == "forest"
    assert found.table["setting"].iloc[0] == "lr"
    assert found.explained > 0.8
    assert found.table["importance"].iloc[0] > 1.0  # shuffled twice the variance: of both, and of score
    assert found.table["importance"].iloc[1:].abs().max() < 0.05


def test_noise_has_no_importance() -> None:
    table, _ = points(60)
    found = importance(table, pd.Series(np.random.default_rng(4).standard_normal(60)))
    assert found.table.empty
    assert "explains" in found.reason


def test_few_points_have_rank_correlations() -> None:
    table, _ = points(12)
    found = importance(table, table["lr"] * 2 + 1)
    assert found.method == "rank correlation"
    assert found.table["setting"].tolist() == ["lr", "seedling"]  # words have no ranks
    assert found.table["importance"].iloc[0] == pytest.approx(1.0)
    assert "too few" in importance(table.iloc[:5], table["lr"].iloc[:5]).reason
    assert "same score" in importance(table, pd.Series(np.ones(12))).reason
    assert "no ranks" in importance(table[["word"]], table["lr"]).reason
