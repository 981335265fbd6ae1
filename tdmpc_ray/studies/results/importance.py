"""Which settings of a search mattered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from tdmpc_ray.studies.results.scaling import Floats

MIN_POINTS = 8  # below, a rank correlation of 0.7 is nothing unusual
MIN_FOREST = 24  # below, a forest learns the noise
MIN_EXPLAINED = 0.1  # share of the variance; below, importances rank noise
_FOLDS = 5
_TREES = 200
_MANY_POINTS, _FEW_TREES = 400, 50  # with so many points, so few trees say the same, in a quarter of the time
_SHUFFLES = 10


@dataclass(frozen=True)
class Importance:
    """What settings had to do with the score.

    Attributes:
        table: a row per setting, most important first: setting, importance, p (of rank correlations; NaN for
            a forest).
        method: "forest" or "rank correlation".
        explained: share of the variance that the forest explains in points it has not seen; NaN for rank
            correlations.
        reason: why there is none; empty if there is.
    """

    table: pd.DataFrame
    method: str = ""
    explained: float = float("nan")
    reason: str = ""


def importance(points: pd.DataFrame, score: pd.Series, *, seed: int = 0) -> Importance:
    """Importance of settings for the score.

    With many points by a random forest: by how much its error on points that it has not seen grows when the
    setting's values are shuffled, as a share of the score's variance. With few points by Spearman's rank
    correlation, of numbers alone.

    Args:
        points: a row per point of the search, a column per setting: numbers, or words.
        score: of each point; larger is better.
        seed: of forest, folds and shuffles.
    """
    nothing = pd.DataFrame(columns=["setting", "importance", "p"])
    if len(points) < MIN_POINTS:
        return Importance(
            nothing, reason=f"{len(points)} points of the search are too few, at least {MIN_POINTS} needed"
        )
    if score.nunique() < 2:
        return Importance(nothing, reason="all points have the same score")
    if len(points) < MIN_FOREST:
        return _rank_correlations(points, score)
    explained, drops = _forest(_encoded(points), score.to_numpy(dtype=float), seed)
    if explained < MIN_EXPLAINED:
        reason = f"a forest explains {max(explained, 0):.0%} of the variance in points it has not seen"
        return Importance(nothing, "forest", explained, reason)
    table = pd.DataFrame({"setting": points.columns, "importance": drops, "p": float("nan")})
    return Importance(
        table.sort_values("importance", ascending=False, ignore_index=True), "forest", explained
    )


def _rank_correlations(points: pd.DataFrame, score: pd.Series) -> Importance:
    rows = []
    for name in points:
        if pd.api.types.is_numeric_dtype(points[name]):
            found = stats.spearmanr(points[name], score)
            rows.append({"setting": name, "importance": float(found.statistic), "p": float(found.pvalue)})
    table = pd.DataFrame(rows, columns=["setting", "importance", "p"])
    if table.empty:
        return Importance(table, reason=f"words have no ranks, and {len(points)} points are too few for more")
    return Importance(
        table.sort_values("importance", key=abs, ascending=False, ignore_index=True), "rank correlation"
    )


def _encoded(points: pd.DataFrame) -> Floats:
    """Numbers as they are, words as numbers in order: trees only ask for order."""
    columns = [
        points[name]
        if pd.api.types.is_numeric_dtype(points[name])
        else pd.factorize(points[name], sort=True)[0]
        for name in points
    ]
    return np.column_stack([np.asarray(column, dtype=float) for column in columns])


def _forest(x: Floats, y: Floats, seed: int) -> tuple[float, Floats]:
    """Explained share of the variance and, per column, what shuffling it costs of it, on held-out points."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    error, drops = 0.0, np.zeros(x.shape[1])
    for train, test in KFold(_FOLDS, shuffle=True, random_state=seed).split(x):
        trees = _TREES if len(y) < _MANY_POINTS else _FEW_TREES
        forest = RandomForestRegressor(trees, min_samples_leaf=2, random_state=seed).fit(x[train], y[train])
        error += float(((forest.predict(x[test]) - y[test]) ** 2).sum())
        shuffled = permutation_importance(
            forest, x[test], y[test], scoring="neg_mean_squared_error", n_repeats=_SHUFFLES, random_state=seed
        )
        drops += shuffled.importances_mean * len(test)
    total = float(((y - y.mean()) ** 2).sum())
    return 1 - error / total, drops / total
