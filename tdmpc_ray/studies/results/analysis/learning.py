"""Learning curves over agent steps, hours and FLOPs."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import (
    draw_curve,
    draw_random,
    log_axis,
    mean_curve,
    name_lines,
    short,
    value_label,
)
from tdmpc_ray.studies.results.random_policy import RUN_IDS, with_random
from tdmpc_ray.studies.results.statistics import result_bounds
from tdmpc_ray.studies.results.study_runs import Group

AXES = {
    "env_steps": "agent steps",
    "hours": "hours of wall time",
    "flops": "FLOPs of updates and planning (logarithmic)",
}


def learning_curves(evidence: Evidence) -> Section:
    """A panel per task and axis; the table has the mean at the end of each line."""
    runs = evidence.runs
    pictures, rows = [], []
    logged = {"env_steps": True, "hours": runs.curves["wall_s"].notna().any()}
    logged["flops"] = (runs.curves["flops"] > 0).any()
    known = [x for x in AXES if logged[x]]
    if runs.is_population:  # hours and FLOPs came with the networks of others
        known = ["env_steps"]
    for task in runs.tasks:
        bounds = result_bounds(task, runs.metric)
        for x in known:
            with panel() as (figure, axes):
                for group in evidence.shown:
                    of_group = evidence.curves_of(task, group, x)
                    if len(of_group):
                        draw_curve(axes, of_group, runs.label(group), evidence.colours[group], x, bounds)
                _finish(axes, evidence, task, x)
            alt = f"{value_label(runs.metric)} on {task} over {AXES[x]}, a line per model size and setting"
            pictures.append(Picture(f"{task}-{x.replace('_', '-')}", alt, figure))
        for group in evidence.complete:
            of_group = evidence.curves_of(task, group, "env_steps")
            if len(of_group):
                rows.append(_end_of_curve(evidence, task, group, of_group))
    why = "Those of a member are its donors', too" if runs.is_population else "Not logged"
    has_flops = "flops" in known
    missing = [name for x, name in AXES.items() if x not in known]
    return Section(
        "learning-curves",
        "Learning curves",
        (
            f"{value_label(runs.metric).capitalize()}: means over seeds, with the 95% interval of the mean "
            "(Student's t) as a band; single seeds are faint. A line ends where its first seed ends. The "
            "table has the means there.",
            f"{evidence.flops_words()} One agent step is "
            f"{runs.frames_per_step} environment frame{'s' * (runs.frames_per_step > 1)}.",
            *(
                ["What was evaluated before the first update has no FLOPs, and so no place over them."]
                * has_flops
            ),
            *evidence.left_out(),
            *([f"{why}, so not drawn: {', '.join(missing)}."] if missing else []),
        ),
        tuple(pictures),
        with_random(pd.DataFrame(rows), runs.random_rows("mean")) if rows else None,
    )


def _finish(axes: Axes, evidence: Evidence, task: str, x: str) -> None:
    axes.margins(x=0.02)
    axes.set_xlabel(AXES[x])
    if x == "flops":  # sizes lie decades apart
        axes.set_xscale("log")
        log_axis(axes.xaxis, *axes.get_xlim())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_ylabel(value_label(evidence.runs.metric))
    axes.set_title(task)
    draw_random(axes, evidence.runs.random_returns.get(task), "random")
    name_lines(axes)


def _end_of_curve(evidence: Evidence, task: str, group: Group, curves: pd.DataFrame) -> dict[str, Any]:
    steps, mean, low, high = mean_curve(curves, bounds=result_bounds(task, evidence.runs.metric))
    own = evidence.of(group)
    own = own[own["task"] == task]
    last = len(steps) - 1
    return {
        "task": task,
        "model_size": group[0],
        "setting": group[1],
        "seeds": len(own),
        "env_steps": int(steps[last]) if len(steps) else None,
        "mean": mean[last] if len(steps) else float("nan"),
        "low": low[last] if len(steps) else float("nan"),
        "high": high[last] if len(steps) else float("nan"),
        "best_of_any": own["best"].max(),
        RUN_IDS: tuple(own["run_id"]),
    }
