"""Panels of learning curves and of results over model size, and the figure that has them side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from textwrap import shorten
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullLocator

from tdmpc_ray.studies.results.drawing import (
    STYLE,
    draw_curve,
    draw_mean,
    draw_random,
    log_axis,
    name_lines,
    rank_colours,
    short,
    value_label,
)
from tdmpc_ray.studies.results.statistics import result_bounds
from tdmpc_ray.studies.results.study_runs import Group, StudyRuns, counted
from tdmpc_ray.studies.tracking.kind import StudyKind

MAX_LINES = 8  # groups in one figure that can be told apart
_LEAST_GAP = 0.07  # of an axis, between two ticks with names
_MOST_LETTERS = 80  # of studies' names above a figure
AXES = {
    "env_steps": "agent steps",
    "hours": "hours of wall time",
    "flops": "FLOPs of updates and planning (logarithmic)",
}


def scaling_figure(runs: StudyRuns) -> Figure:
    """Learning curves (left) and final return over parameters (right), a row per task.

    Returns:
        A figure that belongs to no window; save it with at least 150 dpi.
    """
    with mpl.rc_context(STYLE):
        tasks = runs.tasks
        figure = Figure(
            figsize=(11, 4.4 * len(tasks) + 0.3), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
        )
        panels = figure.subplots(len(tasks), 2, squeeze=False, gridspec_kw={"width_ratios": [1.35, 1]})
        groups = shown_groups(runs)
        colours = rank_colours(groups)
        for (curve_axes, size_axes), task in zip(panels, tasks, strict=True):
            draw_learning(curve_axes, runs, task, colours)
            draw_sizes(size_axes, runs, task, colours)
            curve_axes.set_title(f"{task}: learning curves")
            ends = [axes.get_ylim() for axes in (curve_axes, size_axes)]
            for axes in (curve_axes, size_axes):
                axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
        name_lines([curve_axes for curve_axes, _ in panels])  # they need the final limits
        some = (
            f"the {len(groups)} best of {len(runs.groups)} lines · " if len(groups) < len(runs.groups) else ""
        )
        study = shorten(runs.study, _MOST_LETTERS, placeholder=" …")
        words = f"{study} · {some}{_seeds_words(runs, groups)}"
        figure.suptitle(words, x=0.01, ha="left", fontsize=8, color="#888888")
        return figure


def shown_groups(runs: StudyRuns) -> list[Group]:
    """The groups that figures show, in the study's order: all, or the best that can be told apart."""
    groups = runs.groups
    if len(groups) <= MAX_LINES:
        return groups
    results = counted(runs.trials)
    ranks = results.groupby("task")["final"].rank(pct=True)
    means = ranks.groupby([results["model_size"], results["setting"]]).mean()
    best = set(means.sort_values(ascending=False).index[:MAX_LINES])
    return [group for group in groups if group in best]


def draw_learning(
    axes: Axes, runs: StudyRuns, task: str, colours: Mapping[Group, Any], x: str = "env_steps"
) -> None:
    """Learning curves of one task over `x`, a key of `AXES`: means over seeds, intervals, faint seeds."""
    bounds = result_bounds(task, runs.metric)
    curves = places_on(runs.curves_of(counted(runs.trials)), x)
    of_task = dict(list(curves[curves["task"] == task].groupby(["model_size", "setting"])))
    for group, colour in colours.items():
        if group in of_task:
            draw_curve(axes, of_task[group], runs.label(group), colour, x, bounds)
    draw_random(axes, runs.random_returns.get(task), "random policy")
    axes.margins(x=0.02)
    if x == "flops":  # sizes lie decades apart
        axes.set_xscale("log")
        log_axis(axes.xaxis, *axes.get_xlim())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel(_axis_words(runs, task, x))
    axes.set_ylabel(value_label(runs.metric))
    axes.set_title(task)


def _axis_words(runs: StudyRuns, task: str, x: str) -> str:
    if x != "env_steps":
        return AXES[x]
    if StudyKind.OFFLINE in runs.kind:
        return "updates"
    frames = runs.frames_per_step(task)
    return f"{AXES[x]} (1 agent step = {frames} frame{'s' * (frames > 1)})"


def places_on(curves: pd.DataFrame, x: str) -> pd.DataFrame:
    """The evaluations that have a place on the axis `x`; before the first update there are no FLOPs."""
    if x == "hours":
        curves = curves.assign(hours=curves["wall_s"] / 3600)
    return curves[curves[x] > 0] if x == "flops" else curves[curves[x].notna()]


def draw_sizes(axes: Axes, runs: StudyRuns, task: str, colours: Mapping[Group, Any]) -> None:
    """Final results of one task over parameters: means with intervals, seeds behind them."""
    axes.set_xlabel("parameters (model size)")
    axes.set_ylabel(value_label(runs.metric))
    axes.set_title("After training, by model size")
    bounds = result_bounds(task, runs.metric)
    sizes: dict[float, str] = {}  # by parameters
    for setting in dict.fromkeys(setting for _, setting in colours):
        params, means = [], []
        for group in (g for g in colours if g[1] == setting):
            trials = counted(runs.of(task, *group)).dropna(subset=["params"])
            if len(trials):
                finals = trials["final"].to_numpy(dtype=float)
                params.append(float(trials["params"].max()))
                means.append(float(finals.mean()))
                sizes[params[-1]] = group[0]
                draw_mean(axes, params[-1], finals, colours[group], bounds)
        axes.plot(params, means, color="#bbbbbb", linewidth=1.2, zorder=1)
    if not sizes:
        axes.text(0.5, 0.5, "number of parameters not logged", ha="center", transform=axes.transAxes)
        return
    draw_random(axes, runs.random_returns.get(task), "_")
    axes.set_xscale("log")
    axes.set_xlim(min(sizes) / 2, max(sizes) * 2)
    apart: list[float] = []  # those whose names do not lie on each other
    for place in sorted(sizes):
        if not apart or place > (max(sizes) / min(sizes) * 4) ** _LEAST_GAP * apart[-1]:
            apart.append(place)
    labels = [f"{short(place)}\n({sizes[place]})" for place in apart]
    axes.set_xticks(apart, labels, fontsize=9 if len(apart) < 5 else 7.5)
    axes.xaxis.set_minor_locator(NullLocator())


def _seeds_words(runs: StudyRuns, groups: Iterable[Group]) -> str:
    seeds = sorted({len(counted(runs.of(task, *group))) for task in runs.tasks for group in groups} - {0})
    if seeds == [1]:
        return "one seed per line: no intervals"
    number = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return f"seeds per line: {number} · bands and bars: 95% interval of the mean (t)"
