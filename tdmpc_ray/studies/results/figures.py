"""Figures of a study: learning curves beside return over model size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullLocator

from tdmpc_ray.studies.results.drawing import (
    STYLE,
    draw_curve,
    draw_mean,
    draw_random,
    label_lines,
    rank_colours,
    short,
    value_label,
)
from tdmpc_ray.studies.results.statistics import result_bounds
from tdmpc_ray.studies.results.study_runs import Group, StudyRuns, counted

MAX_LINES = 8  # groups in one figure that can be told apart


def scaling_figure(runs: StudyRuns) -> Figure:
    """Draw learning curves (left) and final return over parameters (right), a row per task.

    One line per model size and setting, or for the best of them: means over seeds, with 95% intervals of the
    mean; single seeds are faint.

    Returns:
        A figure that belongs to no window; save it with at least 150 dpi.
    """
    with mpl.rc_context(STYLE):
        tasks = runs.tasks
        figure = Figure(
            figsize=(11, 4.4 * len(tasks) + 0.3), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
        )
        panels = figure.subplots(len(tasks), 2, squeeze=False, gridspec_kw={"width_ratios": [1.35, 1]})
        groups, every = shown_groups(runs), len(runs.groups)
        colours = rank_colours(groups)
        for (curve_axes, size_axes), task in zip(panels, tasks, strict=True):
            random_return, bounds = runs.random_returns.get(task), result_bounds(task, runs.metric)
            for group in groups:
                trials = counted(runs.of(task, *group))
                if len(trials):
                    curves = runs.curves_of(trials)
                    draw_curve(curve_axes, curves, runs.label(group), colours[group], bounds=bounds)
            _draw_sizes(size_axes, runs, task, colours)
            draw_random(curve_axes, random_return, "random policy")
            draw_random(size_axes, random_return, "_")
            _finish_curves(curve_axes, runs.frames_per_step)
            for axes in (curve_axes, size_axes):
                axes.set_ylabel(value_label(runs.metric))
            top = max(curve_axes.get_ylim()[1], size_axes.get_ylim()[1])
            bottom = min(curve_axes.get_ylim()[0], size_axes.get_ylim()[0])
            for axes in (curve_axes, size_axes):
                axes.set_ylim(bottom, top)
        # Labels need the final limits.
        for (curve_axes, _), task in zip(panels, tasks, strict=True):
            label_lines(curve_axes)
            curve_axes.set_title(f"{task}: learning curves")
        for _, size_axes in panels:
            size_axes.set_title("After training, by model size")
        seeds = sorted({len(counted(runs.of(t, *g))) for t in tasks for g in groups} - {0})
        count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        note = "1 seed: no intervals" if seeds == [1] else "bands and bars: 95% interval of the mean (t)"
        some = f"the {len(groups)} best of {every} lines · " if len(groups) < every else ""
        figure.supxlabel(
            f"{runs.study} · {some}seeds per line: {count} · {note}", fontsize=8, color="#888888"
        )
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


def _finish_curves(axes: Axes, frames: int) -> None:
    axes.set_xlim(left=0)
    axes.margins(x=0.02)
    axes.set_xlabel(f"agent steps (1 agent step = {frames} frame{'s' if frames > 1 else ''})")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _draw_sizes(axes: Axes, runs: StudyRuns, task: str, colours: Mapping[Group, Any]) -> None:
    axes.set_xlabel("parameters (model size)")
    sizes: dict[str, float] = {}  # to parameters
    for setting in dict.fromkeys(setting for _, setting in colours):
        params, means = [], []
        for group in (g for g in colours if g[1] == setting):
            trials = counted(runs.of(task, *group)).dropna(subset=["params"])
            if len(trials):
                finals = trials["final"].to_numpy(dtype=float)
                params.append(float(trials["params"].max()))
                means.append(float(finals.mean()))
                sizes[group[0]] = params[-1]
                bounds = result_bounds(task, runs.metric)
                draw_mean(axes, params[-1], finals, colours[group], bounds)
        axes.plot(params, means, color="#bbbbbb", linewidth=1.2, zorder=1)
    if not sizes:
        axes.text(0.5, 0.5, "number of parameters not logged", ha="center", transform=axes.transAxes)
        return
    axes.set_xscale("log")
    axes.set_xlim(min(sizes.values()) / 2, max(sizes.values()) * 2)
    labels = [f"{short(count)}\n({size})" for size, count in sizes.items()]
    axes.set_xticks(list(sizes.values()), labels, fontsize=9 if len(sizes) < 5 else 7.5)
    axes.xaxis.set_minor_locator(NullLocator())
