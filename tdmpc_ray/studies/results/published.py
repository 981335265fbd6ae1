"""A study's learning curves over the published ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import as_file, files
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from tdmpc_ray.errors import UserError, unknown
from tdmpc_ray.studies.results.drawing import STYLE, aligned, name_lines, rank_colours, short, value_label
from tdmpc_ray.studies.results.figures import shown_groups
from tdmpc_ray.studies.results.study_runs import StudyRuns, counted

ALGORITHMS = ("tdmpc2", "tdmpc2-pixels", "tdmpc", "dreamerv3", "sac")
_GREYS = ("#222222", "#7a7a7a", "#a8a8a8", "#c0a080", "#a0b0c0")
_METRICS = {"eval/return": "reward", "eval/success": "success"}
_WIDER = 1.03  # for the last dots


def published_curves(algorithm: str, task: str, metric: str = "eval/return") -> pd.DataFrame:
    """The published evaluations of an algorithm on a task; sources stand in `data/README.md`.

    Args:
        algorithm: one of `ALGORITHMS`.
        task: a task's name, whatever its action repeat; the table is empty where nothing was published.
        metric: `eval/return` or `eval/success`; each task was published in one of them.

    Returns:
        Columns seed, env_frames and value.

    Raises:
        UserError: unknown algorithm.
    """
    if algorithm not in ALGORITHMS:
        raise unknown("published algorithm", algorithm, ALGORITHMS)
    with as_file(files("tdmpc_ray.studies.results") / "data" / "published_curves.parquet") as path:
        table = pd.read_parquet(path)
    here = (table["algorithm"] == algorithm) & (table["task"] == task.partition("@")[0])
    here &= table["metric"] == _METRICS.get(metric, metric)
    return table.loc[here, ["seed", "env_frames", "value"]].reset_index(drop=True)


def against_published(runs: StudyRuns, algorithms: Sequence[str]) -> pd.DataFrame:
    """The study's evaluations beside the published ones, where both were made.

    Published curves have a point every 50,000 or 100,000 frames, and what lies between two of them is not
    known. So the study is compared at the last of these points that it has reached.

    Returns:
        One row per task, model size, setting and algorithm: columns task, model_size, setting, env_frames,
        seeds, value (mean over seeds), algorithm, published (mean over its seeds) and published_from, the
        first point. A study that has not come so far has its last evaluation and NaN for `published`.

    Raises:
        UserError: unknown algorithm, or it was published for none of these tasks.
    """
    rows: list[dict[str, Any]] = []
    for task in runs.tasks:
        for algorithm in algorithms:
            published = published_curves(algorithm, task, runs.metric)
            if published.empty:
                continue
            places, values = aligned(published, "env_frames", "seed")
            places, values = places[places > 0], values[:, places > 0]
            for (size, setting), curves in _groups(runs, task):
                frames, own = aligned(curves, "env_frames")
                reached = int(np.sum(places <= frames[-1]))
                at = places[reached - 1] if reached else frames[-1]
                rows.append(
                    {
                        "task": task,
                        "model_size": size,
                        "setting": setting,
                        "env_frames": int(at),
                        "seeds": len(own),
                        "value": np.interp(at, frames, own.mean(axis=0)),
                        "algorithm": algorithm,
                        "published": values[:, reached - 1].mean() if reached else math.nan,
                        "published_from": int(places[0]),
                    }
                )
    if not rows:
        raise UserError(
            f"{', '.join(algorithms)}: nothing was published for {', '.join(runs.tasks)}: leave --over out"
        )
    return pd.DataFrame(rows)


def published_figure(runs: StudyRuns, algorithms: Sequence[str]) -> Figure:
    """Draw the study's learning curves over published ones, a panel per task, over environment frames.

    Lines are means over seeds, bands reach from the lowest to the highest seed. Published values are known at
    the dots alone, which is why a dashed line joins them.
    """
    with mpl.rc_context(STYLE):
        columns = min(len(runs.tasks), 3)
        rows = math.ceil(len(runs.tasks) / columns)
        size = (6.4 * columns, 4.4 * rows + 0.3)
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(runs.tasks) :]:
            axes.set_visible(False)
        colours = rank_colours(shown_groups(runs))
        for axes, task in zip(panels, runs.tasks, strict=False):
            _draw_task(axes, runs, task, algorithms, colours)
        name_lines(list(panels[: len(runs.tasks)]))
        figure.suptitle(
            f"{runs.study} · bands: lowest to highest seed · published: known at the dots",
            x=0.01,
            ha="left",
            fontsize=8,
            color="#888888",
        )
        return figure


def _draw_task(
    axes: Axes, runs: StudyRuns, task: str, algorithms: Sequence[str], colours: Mapping[Any, Any]
) -> None:
    end = 0.0
    for group, curves in _groups(runs, task):
        if group in colours:
            _draw(axes, *aligned(curves, "env_frames"), runs.label(group), colours[group])
        end = max(end, float(curves["env_frames"].max()))
    limit = end
    for algorithm, grey in zip(algorithms, _GREYS, strict=False):
        published = published_curves(algorithm, task, runs.metric)
        if len(published):
            places, values = aligned(published, "env_frames", "seed")
            last = places[min(int(np.searchsorted(places, end)), len(places) - 1)]  # at or behind the end
            shown = places <= last
            _draw(axes, places[shown], values[:, shown], f"{algorithm}\n(published)", grey, "--")
            limit = max(limit, last)
    axes.set_xlim(0, _WIDER * limit)
    axes.set_title(task)
    axes.set_xlabel("environment frames (agent steps x action repeat)")
    axes.set_ylabel(value_label(runs.metric))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _draw(
    axes: Axes,
    frames: NDArray[np.float64],
    values: NDArray[np.float64],
    label: str,
    colour: Any,
    style: str = "-",
) -> None:
    axes.plot(
        frames,
        values.mean(axis=0),
        style,
        color=colour,
        label=label,
        linewidth=2 if style == "-" else 1,
        marker="o" if len(frames) < 40 else "",
        markersize=4,
    )
    axes.fill_between(frames, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.18, linewidth=0)


def _groups(runs: StudyRuns, task: str) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """Curves of the trials that count, by size and setting."""
    for group in runs.groups:
        chosen = runs.curves_of(counted(runs.of(task, *group)))
        if len(chosen):
            yield group, chosen
