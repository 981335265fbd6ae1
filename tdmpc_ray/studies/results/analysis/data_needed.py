"""Data to thresholds over model size and ratio of updates, the laws of it, and what these foretell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tdmpc_ray.studies.results.analysis.fitted_laws import Fitted, main_law
from tdmpc_ray.studies.results.analysis.law_runs import PARAMETERS, RATIO, LawRuns
from tdmpc_ray.studies.results.analysis.law_words import (
    foretold_words,
    law_row,
    law_words,
    task_words,
    threshold_words,
    transfer_words,
)
from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import log_axis, name_lines, rank_colours, short
from tdmpc_ray.studies.results.laws.budget import places_on
from tdmpc_ray.studies.results.laws.data_law import DataLaw, Observations
from tdmpc_ray.studies.results.random_policy import RUN_IDS
from tdmpc_ray.studies.results.scaling import Interval, mean_interval

LAWS = "laws"  # key of their section
KEY, TITLE = "data", "Data to a threshold"
_ROOM = 2.0  # times, below and above what was seen
_POINTS = 60  # of a line
_LONGEST_BAR = 10.0  # times the mean: of two runs, an interval can be all there is
_AXIS_WORDS = {RATIO: "updates per step", PARAMETERS: "parameters"}


def data_needed(evidence: Evidence, runs: LawRuns | str, laws: Sequence[Fitted]) -> Section:
    """Steps that runs took to thresholds, a picture for each axis that the study varies."""
    if isinstance(runs, str):
        return Section(KEY, TITLE, absent=f"{runs}.")
    if not runs.axes:
        return Section(KEY, TITLE, absent="the study varies neither model size nor the ratio of updates.")
    if not laws:
        return Section(
            KEY, TITLE, absent="no threshold lies above what runs begin with and below their ends."
        )
    pictures = [
        picture
        for task in dict.fromkeys(fitted.task for fitted in laws)
        for picture in _pictures(evidence, [fitted for fitted in laws if fitted.task == task], runs.unit)
    ]
    return Section(
        KEY,
        TITLE,
        (
            f"{runs.unit[0].upper()}{runs.unit[1:]} until a run first reaches a threshold, its results made "
            "monotone by isotonic regression: points are geometric means over seeds with the 95% interval of "
            "the mean, triangles stand where some have not reached it yet, at what all took at least. "
            + _tasks_words(evidence)
            + (f" All runs have {runs.setting}, the best setting." if runs.setting else ""),
            *transfer_words(runs, laws, evidence),
        ),
        tuple(pictures),
        pd.DataFrame([row for fitted in laws for row in _rows(fitted, evidence)]),
    )


def laws_section(evidence: Evidence, laws: Sequence[Fitted]) -> Section:
    """The law of each threshold with its intervals, and what it foretold of runs that were kept from it."""
    key, title = LAWS, "Laws of data"
    main = main_law(laws)
    if main is None:
        reasons = dict.fromkeys(str(fitted.law) for fitted in laws)
        return Section(key, title, absent=f"{'; '.join(reasons) or 'there are no data to thresholds'}.")
    return Section(
        key,
        title,
        (
            "D = floor + term of ratio (ratio / middle)^-exponent + term of parameters (N / "
            "middle)^-exponent (arXiv 2508.14881), by maximum likelihood of log-normal steps; runs that have "
            "not reached a threshold count as longer than what they took. Intervals of parameters are of the "
            "profile likelihood, bands and forecasts of refits to simulated runs.",
            law_words(main, evidence),
            *[foretold_words(main, one, evidence) for one in main.held_out],
        ),
        table=pd.DataFrame([law_row(fitted, evidence) for fitted in laws]),
    )


def _tasks_words(evidence: Evidence) -> str:
    return (
        ""
        if len(evidence.scales) == 1
        else f"Of several tasks together, it is their mean score. {evidence.scale_words()}"
    )


def _pictures(evidence: Evidence, laws: Sequence[Fitted], unit: str) -> list[Picture]:
    """One for each axis, the other one in the middle of what was tried."""
    found = []
    for axis in (RATIO, PARAMETERS):
        own = [fitted for fitted in laws if axis in fitted.seen.axes]
        if not own:
            continue
        task, middle = task_words(own[0].task), _middle(own[0].seen, axis)
        with panel() as (figure, axes):
            for fitted, colour in zip(own, rank_colours(range(len(own))).values(), strict=True):
                label = threshold_words(fitted.threshold, evidence, fitted.task)
                _draw(axes, fitted, axis, middle, colour, ", ".join(filter(None, [label, fitted.at])))
            axes.set_xscale("log")
            axes.set_yscale("log")
            seen = np.concatenate([fitted.seen.steps for fitted in own])
            axes.set_ylim(seen.min() / _ROOM, seen.max() * _ROOM)  # a band may end far beyond
            log_axis(axes.xaxis, *axes.get_xlim())
            log_axis(axes.yaxis, *axes.get_ylim())
            axes.set_xlabel(f"{_AXIS_WORDS[axis]} (log)")
            axes.set_ylabel(f"{unit} to thresholds (log)")
            at = "".join(f" at {short(value)} {_AXIS_WORDS[name]}" for name, value in middle.items())
            axes.set_title(f"{task}{at}")
            name_lines([axes])
        alt = f"{unit} to thresholds on {task} over {_AXIS_WORDS[axis]}, with the fitted laws"
        found.append(Picture(f"{axis}-{task}", alt, figure))
    return found


def _middle(seen: Observations, axis: str) -> dict[str, float]:
    """The other axis' tried place in the middle; empty where there is no other axis."""
    columns = {name: np.unique(seen.places[:, k]) for k, name in enumerate(seen.axes) if name != axis}
    return {name: float(values[len(values) // 2]) for name, values in columns.items()}


def _draw(axes: Axes, fitted: Fitted, axis: str, middle: dict[str, float], colour: Any, label: str) -> None:
    """Points and law of one threshold along an axis, the other one in the middle."""
    seen = fitted.seen
    for name, value in middle.items():
        seen = seen.only(seen.places[:, seen.axes.index(name)] == value)
    column = seen.places[:, seen.axes.index(axis)]
    tried, means = np.unique(column), []
    for place in tried:
        own = seen.only(column == place)
        is_reached, logs = bool(own.is_reached.all()), np.log(own.steps)
        style: Any = {"color": [colour], "marker": "o" if is_reached else "^"}
        axes.scatter([place] * len(logs), own.steps, s=12, alpha=0.35, linewidth=0, **style)
        means.append(np.exp(logs.mean()))
        axes.scatter([place], means[-1:], s=44, zorder=4, **style)
        low, high = np.exp(mean_interval(logs))
        if is_reached and high < _LONGEST_BAR * own.steps.mean():
            axes.plot([place, place], [low, high], color=colour, linewidth=1.5)
    if not isinstance(fitted.law, DataLaw):
        axes.plot(tried, means, color=colour, linewidth=1, linestyle="--", label=f"{label}: no law")
        return
    line = np.geomspace(column.min(), column.max(), _POINTS)
    columns = {axis: line, **{name: np.full(_POINTS, value) for name, value in middle.items()}}
    places = places_on(fitted.law, columns)
    low, high = np.quantile(fitted.law.sampled(places), [0.025, 0.975], axis=0)
    axes.fill_between(line, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(line, fitted.law(places), color=colour, linewidth=1.6, label=label)


def _rows(fitted: Fitted, evidence: Evidence) -> list[dict[str, Any]]:
    found = []
    rows = fitted.runs.rows.reset_index(drop=True)
    for (ratio, params), own in rows.groupby(["ratio", "params"]):
        seen = fitted.runs.seen(fitted.threshold).only(np.isin(np.arange(len(rows)), own.index))
        interval = Interval(*map(float, np.exp(mean_interval(np.log(seen.steps)))))
        row: dict[str, Any] = {
            "task": task_words(fitted.task),
            "threshold": threshold_words(fitted.threshold, evidence, fitted.task),
            "model_size": own["model_size"].iloc[0],
            "params": params,
            "ratio": ratio,
            "runs": len(own),
            "reached": int(seen.is_reached.sum()),
            "steps": float(np.exp(np.log(seen.steps).mean())),
            "low": interval.low,
            "high": interval.high if seen.is_reached.all() else float("nan"),
            "law": float("nan"),
            RUN_IDS: tuple(run for ids in own["run_ids"] for run in ids),
        }
        if isinstance(fitted.law, DataLaw):
            places = places_on(fitted.law, {RATIO: np.array([ratio]), PARAMETERS: np.array([params])})
            row["law"] = float(fitted.law(places)[0])
        found.append(row)
    return found
