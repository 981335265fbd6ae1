"""What to train next: the cheapest model size and ratio of updates for each threshold, by the fitted laws."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from tdmpc_ray.studies.results.analysis.fitted_laws import Fitted, main_law
from tdmpc_ray.studies.results.analysis.law_runs import LawRuns
from tdmpc_ray.studies.results.analysis.law_words import law_name, task_words, threshold_words
from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import log_axis, name_lines, rank_colours
from tdmpc_ray.studies.results.laws.budget import (
    Best,
    Grid,
    Prices,
    cheapest,
    grid_of,
    seconds_per_step,
)
from tdmpc_ray.studies.results.laws.data_law import DataLaw
from tdmpc_ray.studies.results.random_policy import RUN_IDS

KEY, TITLE = "budget", "What to train next"
_SHOWN_SAMPLES = 40  # refits that the page computes intervals of
_MARGIN = 1.12  # times, around what was tried
_CONTOURS = (1.1, 1.5, 2.0, 3.0, 5.0, 10.0)  # times the least cost


@dataclass(frozen=True)
class _Priced:
    """A law with what a step costs in the runs that it was fitted to, which have the best batch sizes."""

    fitted: Fitted
    prices: Prices

    @property
    def law(self) -> DataLaw:
        assert isinstance(self.fitted.law, DataLaw)
        return self.fitted.law

    @cached_property
    def grid(self) -> Grid:
        """The places to choose from."""
        rows = self.fitted.runs.rows
        return grid_of(rows["ratio"].to_numpy(dtype=float), rows["params"].to_numpy(dtype=float))


def prices_of(evidence: Evidence, runs: LawRuns) -> Prices | None:
    """What steps cost in the study's own runs; None where operations were not logged."""
    trials = evidence.runs.trials.set_index("run_id")
    ends = evidence.runs.curves.sort_values("env_steps").groupby("run_id").last()
    rows = runs.rows.explode("run_ids").drop_duplicates("run_ids").set_index("run_ids")
    each = rows.join(ends[["train_flops", "act_flops", "wall_s", "env_steps"]])
    each = each[(each["train_flops"] > 0) & (each["env_steps"] > 0)]
    if each.empty:
        return None
    steps = each["env_steps"]
    update = (each["train_flops"] / steps / each["ratio"]).groupby(each["params"]).mean()
    plan = (each["act_flops"] / steps).groupby(each["params"]).mean().fillna(0.0)  # of runs that say it
    timed = each[each["wall_s"] > 0]
    total = (timed["train_flops"] + timed["act_flops"].fillna(0.0)) / timed["env_steps"]
    seconds = seconds_per_step(total.to_numpy(), (timed["wall_s"] / timed["env_steps"]).to_numpy())
    own = trials.loc[each.index.intersection(trials.index)]
    simulated = own["sim_hours"] * 3600 / own["env_steps"].clip(lower=1)
    with np.errstate(divide="ignore"):
        log_plan = np.log(plan.to_numpy(dtype=float))
    return Prices(
        np.log(update.index.to_numpy(dtype=float)),
        np.log(update.to_numpy(dtype=float)),
        log_plan,
        seconds,
        float(simulated.mean()) if simulated.notna().any() else 0.0,
    )


def budget(evidence: Evidence, runs: LawRuns | str, laws: Sequence[Fitted]) -> Section:
    """The cheapest way to each threshold that has a law."""
    known = [fitted for fitted in laws if isinstance(fitted.law, DataLaw)]
    if isinstance(runs, str) or not known:
        why = "no law of data to a threshold has been found" if not isinstance(runs, str) else runs
        return Section(KEY, TITLE, absent=f"{why}.")
    priced = [_Priced(fitted, prices) for fitted in known if (prices := prices_of(evidence, fitted.runs))]
    if not priced:
        return Section(KEY, TITLE, absent="no trial has logged time/train_flops.")
    known = [one.fitted for one in priced]
    bests = [cheapest(one.law, one.prices, one.grid, one.prices.step_price) for one in priced]
    main = main_law(laws) or known[-1]
    return Section(
        KEY,
        TITLE,
        (
            "The model size and ratio of updates that reach each threshold with the fewest FLOPs, by the "
            f"laws above: {runs.unit} times what comes with each, updates (their ratio) and the planning of "
            "a decision, as the study's runs have logged them, and the simulator, whose seconds count as the "
            "FLOPs that the study's hardware does in them. 95% intervals come from the laws' refits. "
            "Hours are those of one run on what the study ran on. It is chosen between the sizes and ratios "
            "that were tried.",
            evidence.flops_words(),
            *_end_words(known, bests, evidence),
            "Below, move what a step of the environment is worth: with dear steps, as on a robot, larger "
            "models and more updates pay.",
        ),
        tuple(_pictures(priced[known.index(main)], evidence)),
        pd.DataFrame([_row(f, best, evidence) for f, best in zip(known, bests, strict=True)]),
        widget=_widget(priced, evidence, runs.unit),
    )


def _end_words(known: Sequence[Fitted], bests: Sequence[Best], evidence: Evidence) -> list[str]:
    at_end = [
        f"{law_name(fitted, evidence)} ({' and '.join(best.at_end)})"
        for fitted, best in zip(known, bests, strict=True)
        if best.at_end
    ]
    if not at_end:
        return []
    words = "Where the best place is the last one that was tried, a better one may lie beyond"
    return [f"{words}: {'; '.join(at_end)}."]


def _row(fitted: Fitted, best: Best, evidence: Evidence) -> dict[str, Any]:
    row: dict[str, Any] = {
        "task": task_words(fitted.task),
        "threshold": threshold_words(fitted.threshold, evidence, fitted.task),
        "at": fitted.at,
    }
    for name in ("params", "ratio", "steps", "flops", "hours"):
        row |= {name: getattr(best, name)}
        row |= {f"{name}_low": best.intervals[name].low, f"{name}_high": best.intervals[name].high}
    return {**row, RUN_IDS: tuple(run for ids in fitted.runs.rows["run_ids"] for run in ids)}


def _pictures(priced: _Priced, evidence: Evidence) -> list[Picture]:
    """FLOPs to the threshold over size and ratio: contours, or a line where one of them varies."""
    fitted, law, grid = priced.fitted, priced.law, priced.grid
    places, each = grid.places(law), priced.prices.flops(grid.ratio, grid.params)
    cost = law(places) * (each + priced.prices.step_price)
    name = law_name(fitted, evidence)
    with panel() as (figure, axes):
        axes.set_xscale("log")
        axes.set_title(f"FLOPs to reach {name}")
        if min(grid.shape) > 1:
            axes.set_yscale("log")
            shape = grid.shape
            x, y, z = (part.reshape(shape) for part in (grid.params, grid.ratio, cost / cost.min()))
            levels = [level for level in _CONTOURS if level < z.max()]
            colours = list(rank_colours(range(len(levels))).values())
            lines = axes.contour(x, y, z, levels=levels, colors=colours, linewidths=1.4)
            axes.clabel(lines, fmt=lambda level: f"{level:g}x", fontsize=8)
            best = int(cost.argmin())
            style: Any = {"s": 70, "color": "#b5367a", "zorder": 4}
            axes.scatter([grid.params[best]], [grid.ratio[best]], **style)
            tried = fitted.runs.rows[["params", "ratio"]].drop_duplicates()
            axes.scatter(tried["params"], tried["ratio"], s=10, color="#888888", zorder=3)
            axes.set_xlim(x.min() / _MARGIN, x.max() * _MARGIN)
            axes.set_ylim(y.min() / _MARGIN, y.max() * _MARGIN)
            axes.set_xlabel("parameters (log)")
            axes.set_ylabel("updates per step (log)")
            log_axis(axes.yaxis, *axes.get_ylim())
        else:
            line = grid.params if grid.shape[1] > 1 else grid.ratio
            ends = law.sampled(places) * (each + priced.prices.step_price)
            low, high = np.quantile(ends, [0.025, 0.975], axis=0)
            axes.fill_between(line, low, high, color="#31688e", alpha=0.18, linewidth=0)
            axes.plot(line, cost, color="#31688e", linewidth=2, label="fitted law")
            axes.set_yscale("log")
            axes.set_xlabel("parameters (log)" if grid.shape[1] > 1 else "updates per step (log)")
            axes.set_ylabel("FLOPs (log)")
            log_axis(axes.yaxis, *axes.get_ylim())
            name_lines([axes])
        log_axis(axes.xaxis, *axes.get_xlim())
    alt = f"FLOPs to reach {name} over parameters and updates per step, as multiples of the least"
    return [Picture("flops", alt, figure)]


def _widget(priced: Sequence[_Priced], evidence: Evidence, unit: str) -> str:
    """A part of the page that computes by itself: its script and its data, nothing else."""
    first = priced[0].fitted.task
    about = {"unit": unit, "laws": [_law_data(one, evidence, one.fitted.task == first) for one in priced]}
    folder = files("tdmpc_ray.studies.results") / "data"
    page = (folder / "budget.html").read_text(encoding="utf-8")
    # No text of a study can end the script's element.
    data = json.dumps(about, allow_nan=False).replace("<", "\\u003c")
    return page.replace("{{data}}", data)


def _law_data(priced: _Priced, evidence: Evidence, is_main: bool) -> dict[str, Any]:
    fitted, law, prices, grid = priced.fitted, priced.law, priced.prices, priced.grid
    return {
        "name": law_name(fitted, evidence),
        "threshold": fitted.threshold,
        "isMain": is_main,
        "axes": list(law.axes),
        "centre": law.centre.round(6).tolist(),
        "theta": law.theta.round(6).tolist(),
        "samples": law.samples[:_SHOWN_SAMPLES].round(4).tolist(),
        "ratio": [float(grid.ratio.min()), float(grid.ratio.max())],
        "params": [float(grid.params.min()), float(grid.params.max())],
        "stepPrice": prices.step_price,
        "logParams": prices.log_params.tolist(),
        "logUpdate": prices.log_update.tolist(),
        "logPlan": [value if np.isfinite(value) else None for value in prices.log_plan],
        "seconds": [value if np.isfinite(value) else None for value in prices.seconds],
    }
