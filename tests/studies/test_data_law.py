"""Laws of data: on simulated runs with known laws, by an independent fit, and where there is no law."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from tdmpc_ray.studies.results.laws.crossings import Crossing, Curve, choose_thresholds, crossing, monotone
from tdmpc_ray.studies.results.laws.data_law import DataLaw, Observations, fit_data_law
from tdmpc_ray.studies.results.laws.transfer import Cell, best_of, transfer_rules

SIZES, RATIOS = (0.05, 0.1, 0.3, 1.0, 5.0), (0.25, 0.5, 1.0, 2.0)
TRUTH = {"floor": 3e4, "ratio": (1e4, 0.8), "parameters": (8e3, 0.6)}  # terms at 1, exponents


def true_steps(places: NDArray[Any], axes: tuple[str, ...]) -> NDArray[Any]:
    terms = [TRUTH[axis][0] * places[:, k] ** -TRUTH[axis][1] for k, axis in enumerate(axes)]
    return TRUTH["floor"] + sum(terms)


def simulated(
    seed: int,
    axes: tuple[str, ...] = ("ratio", "parameters"),
    *,
    noise: float = 0.1,
    limit: float = 1e9,
    seeds: int = 3,
) -> Observations:
    """Runs of a law; `limit` is the steps of each."""
    values = {"ratio": RATIOS, "parameters": SIZES}
    grid = np.meshgrid(*[values[axis] for axis in axes], range(seeds), indexing="ij")
    places = np.stack([part.ravel() for part in grid[:-1]], axis=1).astype(float)
    steps = true_steps(places, axes) * np.exp(
        noise * np.random.default_rng(seed).standard_normal(len(places))
    )
    return Observations(
        axes,
        places,
        np.minimum(steps, limit),
        steps <= limit,
        np.full(len(steps), limit),
        np.zeros(len(steps), dtype=bool),
    )


def test_curves_are_monotone_and_cross_between_evaluations() -> None:
    curve = monotone(Curve(np.array([0.0, 10, 20, 30, 40]), np.array([0.0, 4, 2, 8, 6])))
    assert curve.values.tolist() == [0, 3, 3, 7, 7]
    assert crossing(curve, 1.5) == Crossing(5.0, True)
    assert crossing(curve, 5.0) == Crossing(25.0, True)
    assert crossing(curve, 0.0) == Crossing(0.0, True, is_early=True)
    assert crossing(curve, 7.1) == Crossing(40.0, False)


def test_thresholds_are_round_and_most_runs_reach_them() -> None:
    steps = np.arange(0.0, 11)
    curves = [Curve(steps, top * (1 - np.exp(-steps / 3))) for top in np.linspace(600, 900, 10)]
    found = choose_thresholds(curves)
    assert len(found) == 4
    assert all(value % 50 == 0 for value in found)
    assert found[0] > np.median([curve.values[1] for curve in curves])
    assert sum(curve.values[-1] >= found[-1] for curve in curves) >= 7
    assert choose_thresholds([Curve(steps, np.full(11, 5.0))] * 3) == []


def loss_of(theta: NDArray[Any], seen: Observations) -> float:
    """The law's likelihood as its definition reads; the last number is the logarithm of the spread."""
    floor, *rest, spread = theta
    x = np.log(seen.places) - np.log(seen.places).mean(axis=0)
    law = np.exp(floor) + sum(
        np.exp(rest[2 * k] - np.exp(rest[2 * k + 1]) * x[:, k]) for k in range(x.shape[1])
    )
    z = (np.log(seen.steps) - np.log(law)) / np.exp(spread)
    return -float(np.where(seen.is_reached, stats.norm.logpdf(z) - spread, stats.norm.logsf(z)).sum())


@pytest.mark.parametrize("axes", [("ratio", "parameters"), ("parameters",)])
@pytest.mark.parametrize("limit", [1e9, 7e4])
def test_an_independent_fit_agrees(axes: tuple[str, ...], limit: float) -> None:
    seen = simulated(1, axes, limit=limit)
    law = fit_data_law(seen, resamples=20)
    assert isinstance(law, DataLaw)
    own = loss_of(np.array([*law.theta, np.log(law.spread)]), seen)
    rng, found = np.random.default_rng(0), []
    bounds = [(5.0, 12.0), *[(5.0, 12.0), (np.log(0.02), np.log(5.0))] * len(axes), (-5.0, 1.0)]
    for _ in range(8):
        start = np.array(
            [rng.uniform(*pair) for pair in [(8.0, 11.0), *[(8.0, 11.0), (-1.0, 0.7)] * len(axes), (-3, 0)]]
        )
        found.append(optimize.minimize(loss_of, start, (seen,), method="L-BFGS-B", bounds=bounds))
    other = min(found, key=lambda fit: fit.fun)
    assert own == pytest.approx(other.fun, abs=0.02)
    assert list(law.theta) == pytest.approx(list(other.x[:-1]), abs=0.1)


def test_intervals_hold_the_truth_and_bands_are_narrow_where_runs_are() -> None:
    seen = simulated(0, noise=0.04)
    law = fit_data_law(seen)
    assert isinstance(law, DataLaw)
    assert law.doubts == ()
    assert law.intervals["exponent of ratio"].low < 0.8 < law.intervals["exponent of ratio"].high
    assert law.intervals["floor"].low < 3e4 < law.intervals["floor"].high
    places = np.array([[0.7, 0.5], [1.4, 2.0]])
    low, high = np.quantile(law.sampled(places), [0.025, 0.975], axis=0)
    truth = true_steps(places, seen.axes)
    assert ((low < truth) & (truth < high)).all()
    assert (high / low < 1.25).all()


def test_runs_that_have_not_got_there_count() -> None:
    """Left out, they would make the law too good where it is slow."""
    seen = simulated(0, limit=7e4)
    assert 0.2 < 1 - seen.is_reached.mean() < 0.5
    law, without = fit_data_law(seen), fit_data_law(seen.only(seen.is_reached))
    assert isinstance(law, DataLaw)
    slow = np.array([[0.25, 0.05]])
    truth = true_steps(slow, seen.axes)[0]
    assert law(slow)[0] == pytest.approx(truth, rel=0.35)
    assert isinstance(without, str) or without(slow)[0] < law(slow)[0]


def test_no_law_is_claimed_without_one_or_of_too_little() -> None:
    seen = simulated(0, ("parameters",))
    rng = np.random.default_rng(0)
    claimed = 0
    for _ in range(40):
        flat = seen._replace(steps=4e4 * np.exp(0.2 * rng.standard_normal(len(seen.steps))))
        claimed += isinstance(fit_data_law(flat, resamples=4), DataLaw)
    assert claimed <= 4
    few = seen.only(seen.places[:, 0] > 0.2)
    assert fit_data_law(few) == "3 sizes reach it, and at least 4 are needed"
    late = seen._replace(is_reached=np.zeros(len(seen.steps), dtype=bool))
    assert fit_data_law(late) == "0 sizes reach it, and at least 4 are needed"
    idle = simulated(0)
    idle = idle._replace(
        steps=idle.steps * 0
        + true_steps(idle.places[:, 1:], ("parameters",)) * np.exp(0.1 * rng.standard_normal(60))
    )
    law = fit_data_law(idle)
    assert isinstance(law, DataLaw)
    assert law.axes == ("parameters",), "the law of what matters"
    early = seen._replace(is_early=np.arange(len(seen.steps)) < 3)
    assert fit_data_law(early) == "3 of 15 runs are there at their first evaluation: evaluate more often"


def test_axes_that_vary_together_are_not_told_apart() -> None:
    places = np.repeat([[0.25, 0.1], [0.5, 0.3], [1.0, 1.0], [2.0, 5.0]], 5, axis=0)
    noise = np.random.default_rng(0).standard_normal(len(places))
    steps = true_steps(places, ("ratio", "parameters")) * np.exp(0.02 * noise)
    everyone, nobody = np.ones(len(places), dtype=bool), np.zeros(len(places), dtype=bool)
    seen = Observations(("ratio", "parameters"), places, steps, everyone, steps * 9, nobody)
    assert fit_data_law(seen) == "ratio and parameters vary together, and cannot be told apart"


def test_parameters_that_runs_do_not_tell_are_doubted() -> None:
    law = fit_data_law(simulated(3, noise=0.3, seeds=1))
    assert isinstance(law, str) or law.doubts
    steep = simulated(0, ("parameters",), noise=0.02)
    steep = steep._replace(steps=1e3 + 1e3 * steep.places[:, 0] ** -1.0)
    law = fit_data_law(steep)
    assert isinstance(law, DataLaw)
    assert law.doubts == ()


def test_the_best_batch_and_rate_move_with_size_and_ratio() -> None:
    """Of a batch that is best at 64 * ratio^-0.5 * N^0.25."""
    batches = 2.0 ** np.arange(2, 12)
    cells = []
    for ratio in (0.25, 1.0, 4.0):
        for size in (1.0, 16.0, 256.0):
            best = 64 * ratio**-0.5 * size**0.25
            steps = 1e4 * np.exp(np.log(batches / best) ** 2)
            tuned = np.stack([batches, np.full(10, np.nan)], axis=1)
            cells.append(Cell((ratio, size), tuned, steps, np.ones(10, dtype=bool), np.arange(10)))
    (value, _), rows = best_of(cells[0])
    assert value == 128
    assert rows.sum() == 1
    (rule,) = transfer_rules(cells, {"ratio": 0, "parameters": 1})
    assert rule.setting == "update.batch_size"
    assert rule.slopes["ratio"] == pytest.approx(-0.5, abs=0.05)
    assert rule.slopes["parameters"] == pytest.approx(0.25, abs=0.05)
    assert rule.factor == pytest.approx(64, rel=0.1)
    assert rule.intervals["ratio"].low <= -0.5 + 1e-9 <= rule.intervals["ratio"].high + 2e-9
    unreached = cells[0]._replace(is_reached=cells[0].steps > 2e4)
    assert best_of(unreached)[0][0] in batches[cells[0].steps > 2e4]
    assert transfer_rules(cells[:3], {"ratio": 0, "parameters": 1}) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("axes", "noise", "limit", "seeds"),
    [
        (("ratio", "parameters"), 0.1, 1e9, 3),
        (("ratio", "parameters"), 0.1, 7e4, 3),
        (("parameters",), 0.1, 1e9, 3),
        (("parameters",), 0.05, 1e9, 1),
    ],
    ids=["joint", "censored", "size", "one seed"],
)
def test_intervals_cover_at_their_level(
    axes: tuple[str, ...], noise: float, limit: float, seeds: int
) -> None:
    """300 simulations of each; 95 % intervals of all parameters and bands, within three points."""
    hits: dict[str, list[bool]] = {}
    places = np.array([[0.7, 0.5], [1.4, 2.0]])[:, -len(axes) :]
    for seed in range(300):
        seen = simulated(seed, axes, noise=noise, limit=limit, seeds=seeds)
        law = fit_data_law(seen)
        if isinstance(law, str):
            continue
        centre = dict(zip(axes, np.exp(law.centre), strict=True))
        truth = {"floor": TRUTH["floor"]}
        for axis in axes:
            term, exponent = TRUTH[axis]
            truth |= {f"term of {axis}": term * centre[axis] ** -exponent, f"exponent of {axis}": exponent}
        for name, (low, high) in law.intervals.items():
            hits.setdefault(name, []).append(low <= truth[name] <= high)
        low, high = np.quantile(law.sampled(places), [0.025, 0.975], axis=0)
        hits.setdefault("band", []).extend(
            (low <= true_steps(places, axes)) & (true_steps(places, axes) <= high)
        )
    shares = {name: float(np.mean(values)) for name, values in hits.items()}
    print(f"{axes}, noise {noise}, limit {limit:g}, {seeds} seeds: {shares}")
    assert len(hits["floor"]) > 150
    assert all(0.92 <= share <= 0.98 + 0.02 for share in shares.values()), shares


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("axes", [("ratio", "parameters"), ("parameters",)])
def test_no_law_is_claimed_where_there_is_none(axes: tuple[str, ...]) -> None:
    """In at most 5 % of 300 studies whose steps depend on nothing."""
    seen = simulated(0, axes)
    claimed = 0
    for seed in range(300):
        noise = np.random.default_rng(seed).standard_normal(len(seen.steps))
        claimed += isinstance(
            fit_data_law(seen._replace(steps=4e4 * np.exp(0.2 * noise)), resamples=4), DataLaw
        )
    print(f"{axes}: {claimed} of 300")
    assert claimed <= 15
