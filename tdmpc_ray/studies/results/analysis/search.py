"""What a search over settings tried, and which settings mattered."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from tdmpc_ray.studies.results.analysis.population import NO_SEARCH
from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.importance import Importance, importance
from tdmpc_ray.studies.results.random_policy import RUN_IDS, with_random
from tdmpc_ray.studies.results.scaling import Floats
from tdmpc_ray.studies.results.setting_names import varying, with_defaults

_LOG_RATIO = 10.0  # numbers that span more are drawn on a logarithmic axis
_MAX_NUMBERS = 6  # more than these on one axis get a scale instead of a name each
_NOT_SET = "not set"
_NO_SEARCH = "the study varies nothing but size, seed and task, or only one setting has results."


def search_points(evidence: Evidence) -> pd.DataFrame:
    """A row per point of the search: its settings, `score` (mean over seeds and tasks), seeds, run ids.

    Numbers are numbers, and model_size is one of the settings where there are several.
    """
    trials, _ = evidence.searched
    names, trials = varying(trials), with_defaults(trials)
    sizes = {"model_size": "model_size"} if trials["model_size"].nunique() > 1 else {}
    columns = {**sizes, **names}
    rows = []
    is_one_task = trials["task"].nunique() == 1
    for keys, group in trials.groupby(list(columns), dropna=False):
        rows.append(
            {
                **dict(zip(columns.values(), keys, strict=True)),
                "score": (group if is_one_task else group.groupby("task"))["score"].mean().mean(),
                "runs": len(group),
                "stopped_early": int((group["stopped_early"] != "").sum()),
                RUN_IDS: tuple(group["run_id"]),
            }
        )
    points = pd.DataFrame(rows)
    for name in names.values():
        numbers = pd.to_numeric(points[name], errors="coerce")
        points[name] = numbers if numbers.notna().all() else points[name].fillna(_NOT_SET)
    if sizes:
        order = {size: place for place, size in enumerate(evidence.runs.sizes)}
        points = points.sort_values("model_size", key=lambda column: column.map(order))
    return points.sort_values("score", ascending=False, kind="stable", ignore_index=True)


def setting_columns(points: pd.DataFrame) -> list[str]:
    """The settings among the columns of `search_points`."""
    return [str(name) for name in points if name not in ("score", "runs", "stopped_early", RUN_IDS)]


def parallel_coordinates(evidence: Evidence) -> Section:
    """A line per point of the search through its settings to its score."""
    key, title = "search", "What the search tried"
    if evidence.runs.is_population:
        return Section(key, title, absent=NO_SEARCH)
    if not varying(evidence.searched[0]):
        return Section(key, title, absent=_NO_SEARCH)
    points = search_points(evidence)
    names = setting_columns(points)
    size = {} if "model_size" in points else {"model_size": evidence.runs.sizes[0]}
    table = points.assign(**size)[["model_size", *points.columns.drop("model_size", errors="ignore")]]
    return Section(
        key,
        title,
        (
            "A line per point of the search, from its settings on the left to its score on the right; bright "
            f"is good. Numbers over more than a factor of {_LOG_RATIO:.0f} stand on logarithmic axes. "
            f"{evidence.scale_words()} Points are means over their seeds and tasks.",
            *_common_step(evidence),
        ),
        (_parallel_picture(evidence, points, names),),
        with_random(table, evidence.random_rows("score")),
    )


def importance_section(evidence: Evidence) -> Section:
    """Which settings mattered for the score."""
    key, title = "importance", "Which settings mattered"
    if evidence.runs.is_population:
        return Section(key, title, absent=NO_SEARCH)
    if not varying(evidence.searched[0]):
        return Section(key, title, absent=_NO_SEARCH)
    points = search_points(evidence)
    names = setting_columns(points)
    inputs = points[names].copy()
    if "model_size" in names:  # by its place in the order of sizes
        inputs["model_size"] = inputs["model_size"].map(evidence.runs.sizes.index)
    found = importance(inputs, points["score"])
    if found.reason:
        return Section(key, title, absent=f"{found.reason}.")
    table = found.table.dropna(axis="columns", how="all").assign(
        points=len(points), **{RUN_IDS: [sum(points[RUN_IDS], ())] * len(found.table)}
    )
    return Section(key, title, (_how(found, len(points)), *_common_step(evidence)), (_bars(found),), table)


def _common_step(evidence: Evidence) -> list[str]:
    trials, step = evidence.searched
    if step is None:
        return []
    stopped = int((trials["stopped_early"] != "").sum())
    return [
        f"{stopped} of {len(trials)} runs were stopped early: all are compared by their results at {step:,} "
        "agent steps, which every one of them has reached."
    ]


def _how(found: Importance, points: int) -> str:
    if found.method == "forest":
        return (
            f"A random forest on the {points} points explains {found.explained:.0%} of the score's variance "
            "in points it has not seen (five folds). A bar is the share of the variance that it loses there "
            "when the values of one setting are shuffled. Settings that only matter together share theirs."
        )
    return (
        f"{points} points are too few for a model: bars are Spearman's rank correlations between a setting "
        "and the score. Right: larger is better; left: smaller is better. They see trends, neither optima "
        "in the middle nor settings that are words. The table has p values, not corrected for their number."
    )


def _bars(found: Importance) -> Picture:
    table = found.table
    with panel(height=1.4 + 0.34 * len(table)) as (figure, axes):
        axes.barh(range(len(table)), table["importance"], color="#31688e", height=0.6)
        axes.axvline(0, color="#888888", linewidth=1)
        axes.set_yticks(range(len(table)), list(table["setting"]))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        is_forest = found.method == "forest"
        axes.set_xlabel("share of the variance lost" if is_forest else "rank correlation with the score")
        axes.set_title("Permutation importance" if is_forest else "Rank correlation")
    return Picture("importance", "A bar per setting: how much it had to do with the score", figure)


def _parallel_picture(evidence: Evidence, points: pd.DataFrame, names: list[str]) -> Picture:
    with panel(width=1.7 * (len(names) + 1) + 1.6, height=4.2) as (figure, axes):
        heights = [_axis(axes, place, points[name], evidence.runs.sizes) for place, name in enumerate(names)]
        low, high = float(points["score"].min()), float(points["score"].max())
        spread = (high - low) or 1.0
        score = ((points["score"] - low) / spread).to_numpy(dtype=float)
        heights.append(score)
        _ticks(axes, len(names), [(t, f"{low + t * spread:.3g}") for t in (0.0, 0.5, 1.0)])
        colormap, limits = mpl.colormaps["viridis"], Normalize(low, low + spread)
        order = np.argsort(score)  # the best ones on top
        places = np.broadcast_to(np.arange(len(heights)), (len(points), len(heights)))
        lines = np.stack([places, np.stack(heights, axis=1)], axis=2)[
            order
        ]  # (points, settings and score, 2)
        style: Any = {"colors": colormap(limits(points["score"].to_numpy()[order])), "alpha": 0.8}
        axes.add_collection(LineCollection(list(lines), linewidths=1.5 + score[order], **style))
        axes.set_xticks(range(len(names) + 1), [*names, "score"])
        axes.set_xlim(-0.35, len(names) + 0.55)
        axes.set_ylim(-0.06, 1.06)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        figure.colorbar(ScalarMappable(limits, colormap), ax=axes, label="score", shrink=0.8, pad=0.01)
    return Picture("parallel", "Parallel coordinates: settings and score of each point", figure, is_wide=True)


def _axis(axes: Axes, place: int, values: pd.Series, sizes: list[str]) -> Floats:
    """Draw one setting's axis; returns the heights of the points, 0 to 1."""
    if not pd.api.types.is_numeric_dtype(values):
        known = set(values.astype(str))
        names = [size for size in sizes if size in known] if values.name == "model_size" else sorted(known)
        where = dict(zip(names, np.linspace(0.05, 0.95, len(names)), strict=True))
        _ticks(axes, place, [(height, name) for name, height in where.items()])
        return np.array([where[str(value)] for value in values])
    numbers = values.to_numpy(dtype=float)
    is_log = numbers.min() > 0 and numbers.max() / numbers.min() > _LOG_RATIO
    scaled = np.log10(numbers) if is_log else numbers
    low, width = scaled.min(), np.ptp(scaled) or 1.0
    distinct = np.unique(scaled)
    shown = distinct if len(distinct) <= _MAX_NUMBERS else np.linspace(low, low + width, 4)
    _ticks(axes, place, [((t - low) / width, f"{10**t if is_log else t:.3g}") for t in shown])
    return np.asarray((scaled - low) / width)


def _ticks(axes: Axes, place: int, ticks: list[tuple[float, str]]) -> None:
    axes.axvline(place, ymin=0.05, ymax=0.95, color="#999999", linewidth=1.2, zorder=0)
    box = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1}
    for height, name in ticks:
        axes.annotate(
            name,
            (place, height),
            (5, 0),
            textcoords="offset points",
            fontsize=8,
            va="center",
            bbox=box,
            zorder=5,
        )
