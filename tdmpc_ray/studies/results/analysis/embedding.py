"""Which tasks a model of several takes for alike: a map of their embeddings."""

from __future__ import annotations

from itertools import combinations
from math import dist, nan
from statistics import fmean
from typing import Literal

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.random_policy import RUN_IDS

_KEY, _TITLE = "embeddings", "Task embeddings"
_MOST_PANELS, _MANY = 6, 12


def embeddings(evidence: Evidence) -> Section:
    """A map of each model size, of its best run with several tasks; for studies that have such."""
    runs = evidence.runs
    places = runs.embeddings
    trials = runs.trials[runs.trials["run_id"].isin(places["run_id"])].sort_values("final")
    best = trials.groupby("model_size")["run_id"].last()
    sizes = [size for size in runs.sizes if size in best.index][-_MOST_PANELS:]
    pictures, rows = [], []
    for size in sizes:
        own = places[places["run_id"] == best[size]]
        pictures.append(_picture(own, size))
        within, between = _distances(own)
        rows.append(
            {
                "model_size": size,
                "tasks": len(own),
                "within a body": within,
                "between bodies": between,
                "variance shown": own["shown"].iloc[0],
                RUN_IDS: (best[size],),
            }
        )
    text = (
        "What the best run of each size is told about its tasks, on the plane of the embeddings' two "
        "principal components: what lies together is alike to the model. Colours are bodies.",
        "The table has mean distances on that plane between tasks of one body and of different ones, and how "
        "much of the embeddings' variance the plane shows.",
    )
    return Section(_KEY, _TITLE, text, tuple(pictures), pd.DataFrame(rows))


def _body(task: str) -> str:
    """The first part of a task's name: the body in DMControl's, the suite elsewhere."""
    return task.partition("-")[0]


def _picture(places: pd.DataFrame, size: str) -> Picture:
    """Points with their tasks' names; of many tasks, with their bodies' names in the middle of each."""
    colours = mpl.colormaps["tab20"].colors  # type: ignore[attr-defined]
    with panel() as (figure, axes):
        for number, (body, own) in enumerate(places.groupby(places["task"].map(_body))):
            colour = colours[number % len(colours)]
            axes.scatter(own["x"], own["y"], color=colour, s=28)
            middle = own["x"].mean()
            if len(places) > _MANY:
                _name(axes, str(body), middle, own["y"].mean(), "center")
                continue
            for place in own.itertuples():
                _name(axes, place.task, place.x, place.y, "left" if place.x >= middle else "right")
        axes.set(xlabel="first component", ylabel="second component", title=f"size {size}")
        axes.margins(0.3, 0.15)
        axes.set_aspect("equal", adjustable="datalim")
    shown = places["shown"].iloc[0]
    alt = f"Map of {len(places)} task embeddings of size {size}, which shows {shown:.0%} of their variance."
    return Picture(f"{_KEY}_{size}", alt, figure)


def _name(axes: Axes, name: str, x: float, y: float, side: Literal["left", "center", "right"]) -> None:
    beside = {"left": (6, -3), "center": (0, 6), "right": (-6, -3)}[side]
    axes.annotate(name, (x, y), xytext=beside, textcoords="offset points", fontsize=8, ha=side)


def _distances(places: pd.DataFrame) -> tuple[float, float]:
    """Mean distances on the plane of tasks with one body, and of others; NaN where there are none."""
    within: list[float] = []
    between: list[float] = []
    for one, other in combinations(list(places.itertuples()), 2):
        far = dist((one.x, one.y), (other.x, other.y))
        (within if _body(one.task) == _body(other.task) else between).append(far)
    return fmean(within or [nan]), fmean(between or [nan])
