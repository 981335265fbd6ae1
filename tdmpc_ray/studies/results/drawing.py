"""What the figures of studies share: style, colours, curves over seeds, labels at the ends of lines."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from tdmpc_ray.studies.results.scaling import ANY, Interval, mean_interval

_SHORT_NAME = 13  # letters that a label beside a panel may have: "random policy"
_LETTERS_PER_INCH = 16  # of a legend
_HANDLE = 6  # letters that the line before a name takes, and the gap behind it

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": "#333333",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "text.color": "#333333",
}


def rank_colours(groups: Sequence[Any]) -> dict[Any, Any]:
    """Colours by rank, light to dark along one perceptually ordered map."""
    colormap = mpl.colormaps["viridis_r"]
    places = np.linspace(0.25, 0.9, len(groups)) if len(groups) > 1 else [0.6]
    return {group: colormap(place) for group, place in zip(groups, places, strict=True)}


def aligned(
    curves: pd.DataFrame, x: str = "env_steps", by: str = "run_id"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Curves of several seeds at the same places: where all of them have data, interpolated in between.

    FLOPs are drawn on a logarithmic axis, so between two of them lines are straight there.

    Args:
        curves: a row per evaluation, with `value`.
        x: the column of places.
        by: the column that tells seeds apart.

    Returns:
        Places (points,) and values (seeds, points), seeds in the order of their rows; no points where the
        seeds have none in common.
    """
    # Arrays, because a frame for each of a thousand curves takes seconds.
    at, value = curves[x].to_numpy(dtype=float), curves["value"].to_numpy(dtype=float)
    seed, names = pd.factorize(curves[by])
    seeds = []
    for number in range(len(names)):
        own = np.flatnonzero(seed == number)
        own = own[np.argsort(at[own], kind="stable")]
        seeds.append((at[own], value[own]))
    start = max(places[0] for places, _ in seeds)
    stop = min(places[-1] for places, _ in seeds)
    places = np.unique(at)
    places = places[(places >= start) & (places <= stop)]
    scale = np.log if x == "flops" else np.asarray
    return places, np.array([np.interp(scale(places), scale(at), value) for at, value in seeds])


def mean_curve(
    curves: pd.DataFrame, x: str = "env_steps", bounds: Interval = ANY
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean over seeds along the column `x`, see `aligned`; intervals end at the `bounds` of results.

    Returns:
        Places, mean, lower and upper end of the 95% interval, each (points,); the ends are NaN for one seed.
    """
    places, values = aligned(curves, x)
    if len(values) == 1:
        nothing = np.full(len(places), np.nan)
        return places, values[0], nothing, nothing
    ends = np.array([mean_interval(column, bounds) for column in values.T]).reshape(-1, 2)
    return places, values.mean(axis=0), ends[:, 0], ends[:, 1]


def draw_curve(
    axes: Axes, curves: pd.DataFrame, label: str, colour: Any, x: str = "env_steps", bounds: Interval = ANY
) -> None:
    """The mean over seeds with its interval, single seeds faint; `x` and `bounds` as for `mean_curve`."""
    seeds = curves.groupby("run_id")
    if len(seeds) > 1:
        for _, seed in seeds:
            axes.plot(seed[x], seed["value"], color=colour, alpha=0.3, linewidth=0.8)
    places, mean, low, high = mean_curve(curves, x, bounds)
    marker = "o" if len(places) < 40 else ""
    axes.plot(places, mean, color=colour, linewidth=2, marker=marker, markersize=3.5, label=label)
    axes.fill_between(places, low, high, color=colour, alpha=0.18, linewidth=0)


def draw_mean(
    axes: Axes, x: float, values: NDArray[np.float64], colour: Any, bounds: Interval, least: float = 0.0
) -> None:
    """The mean of seeds at one place, with its interval as a bar, and the seeds behind it.

    Args:
        axes: to draw on.
        x: the place.
        values: one per seed.
        colour: of all.
        bounds: of results.
        least: the bar ends no lower than this share of the smallest value: a logarithmic axis has no zero.
    """
    mean = float(values.mean())
    if len(values) > 1:
        low, high = mean_interval(values, bounds)
        low = max(low, least * values.min()) if least else low
        axes.scatter([x] * len(values), values, s=14, color=colour, alpha=0.35, linewidth=0, zorder=2)
        bar = [[mean - low], [high - mean]]
        axes.errorbar(x, mean, bar, color=colour, capsize=4, linewidth=1.8, zorder=3)
    axes.scatter([x], [mean], s=52, color=[colour], edgecolor="white", linewidth=1, zorder=4)


def draw_random(axes: Axes, value: float | None, label: str) -> None:
    """The random policy's return, where it is known."""
    if value is not None:
        axes.axhline(value, label=label, color="#999999", linewidth=1.2, linestyle=(0, (4, 3)))


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending positions as little as it takes to be `gap` apart, within [low, high] if they fit."""
    if not len(values):
        return []
    offsets = gap * np.arange(len(values))
    moved = isotonic_regression(np.asarray(values) - offsets).x
    return [float(x) for x in np.clip(moved, low, max(high - offsets[-1], low)) + offsets]


def label_lines(axes: Axes) -> None:
    """Write each line's name at its right end, moved apart where they would overlap."""
    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    bottom, top = axes.get_ylim()
    gap = 0.055 * (top - bottom)
    ends = []
    for line in lines:
        values = np.asarray(line.get_ydata(), dtype=float)
        if len(values):
            ends.append((float(values[-1]), line))
    ends.sort(key=lambda end: end[0])
    heights = spread([value for value, _ in ends], gap, bottom, top)
    for height, (_, line) in zip(heights, ends, strict=True):
        axes.annotate(
            str(line.get_label()),
            (1.0, height),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=line.get_color(),
            annotation_clip=False,
        )


def name_lines(panels: Sequence[Axes]) -> None:
    """Name the lines of a figure's panels: short names at their ends, long ones below, once for all.

    The panels have to have their final limits.
    """
    named = {
        name: line for axes in panels for line, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    longest = max((len(line) for name in named for line in name.splitlines()), default=0)
    if longest <= _SHORT_NAME:
        for axes in panels:
            label_lines(axes)
        return
    figure = panels[0].get_figure()
    assert isinstance(figure, Figure)
    room = int(figure.get_figwidth() * _LETTERS_PER_INCH) - 6
    columns = max(1, room // (longest + _HANDLE))
    words = [fill(name, room) for name in named]
    lines = sum(text.count("\n") + 1 for text in words)
    figure.set_figheight(figure.get_figheight() + 0.18 * -(-lines // columns))
    style: Any = {"loc": "outside lower left", "frameon": False, "fontsize": 8}
    figure.legend(list(named.values()), words, ncols=columns, **style)


def log_axis(axis: Axis, low: float, high: float) -> None:
    """Plain numbers on a logarithmic axis: a few of each decade where there are few decades."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())
    if high / low < 4:
        axis.set_major_locator(MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
        return
    subs = (1.0,) if high / low > 1000 else (1.0, 3.0) if high / low > 20 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs))


def value_label(metric: str) -> str:
    kinds = {"success": "success rate", "score": "normalised score"}
    return f"{kinds.get(metric.rpartition('/')[2], 'return')} in evaluation"


def short(value: float) -> str:
    """1500 as 1.5k, 5.4e6 as 5.4M, 2e15 as 2P."""
    for power, suffix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.3g}{suffix}"
    return f"{value:.3g}"
