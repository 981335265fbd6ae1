"""Learning curves over agent steps, hours and training FLOPs, and the frontier of what FLOPs buy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from tdmpc_ray.studies.results.analysis.section import RUN_IDS, Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import (
    aligned,
    draw_curve,
    log_axis,
    mean_curve,
    name_lines,
    short,
    value_label,
)
from tdmpc_ray.studies.results.study_runs import Group

_AXES = {
    "env_steps": "agent steps",
    "hours": "hours of wall time",
    "train_flops": "training FLOPs (logarithmic)",
}
_FRONTIER_POINTS = 200


def learning_curves(evidence: Evidence) -> Section:
    """A panel per task and axis; the table has the mean at the end of each line."""
    runs = evidence.runs
    flops = runs.curves["train_flops"]
    curves = runs.curves.assign(hours=runs.curves["wall_s"] / 3600, train_flops=flops.where(flops > 0))
    pictures, rows = [], []
    known = [x for x in _AXES if curves[x].notna().any()]
    for task in runs.tasks:
        for x in known:
            with panel() as (figure, axes):
                for group in evidence.shown:
                    of_group = _curves(evidence, curves, task, group, x)
                    if len(of_group):
                        draw_curve(axes, of_group, runs.label(group), evidence.colours[group], x)
                _finish(axes, evidence, task, x)
            alt = f"{value_label(runs.metric)} on {task} over {_AXES[x]}, a line per model size and setting"
            pictures.append(Picture(f"{task}-{x.replace('_', '-')}", alt, figure))
        for group in evidence.complete:
            of_group = _curves(evidence, curves, task, group, "env_steps")
            if len(of_group):
                rows.append(_end_of_curve(evidence, task, group, of_group))
    missing = [name for x, name in _AXES.items() if x not in known]
    return Section(
        "learning-curves",
        "Learning curves",
        (
            f"{value_label(runs.metric).capitalize()}: means over seeds, with the 95% interval of the mean "
            "(Student's t) as a band; single seeds are faint. A line ends where its first seed ends. The "
            "table has the means there.",
            "Training FLOPs count the gradient updates (forward, backward, targets), not planning or "
            "simulation. One agent step is "
            f"{runs.frames_per_step} environment frame{'s' * (runs.frames_per_step > 1)}.",
            *evidence.left_out(),
            *([f"Not logged, so not drawn: {', '.join(missing)}."] if missing else []),
        ),
        tuple(pictures),
        pd.DataFrame(rows),
    )


def frontier(evidence: Evidence) -> Section:
    """The best mean so far of any group at each number of training FLOPs, and whose it is."""
    key, title = "frontier", "Compute-optimal frontier"
    runs = evidence.runs
    curves = runs.curves[runs.curves["train_flops"] > 0]
    if len(evidence.complete) < 2:
        return Section(key, title, absent="it takes at least two sizes or settings to choose from.")
    if curves.empty:
        return Section(key, title, absent="no trial has logged time/train_flops.")
    pictures, rows = [], []
    for task in runs.tasks:
        lines: dict[Group, Any] = {}
        for group in evidence.complete:
            of_group = _curves(evidence, curves, task, group, "train_flops")
            if len(of_group):
                places, values = aligned(of_group, "train_flops")
                if len(places):
                    lines[group] = places, values.mean(axis=0)
        if len(lines) < 2:
            continue
        flops, best, leaders = _envelope(lines)
        with panel() as (figure, axes):
            for group in (g for g in evidence.shown if g in lines):
                style: Any = {"color": evidence.colours[group], "linewidth": 1.6, "label": runs.label(group)}
                axes.plot(*lines[group], **style)
            axes.plot(
                flops, best, color="#222222", linewidth=3.2, alpha=0.35, drawstyle="steps-post", zorder=1
            )
            axes.set_xscale("log")
            log_axis(axes.xaxis, float(flops[0]), float(flops[-1]))
            axes.set_xlabel(_AXES["train_flops"])
            axes.set_ylabel(value_label(runs.metric))
            axes.set_title(task)
            name_lines(axes)
        pictures.append(Picture(task, f"Best mean so far on {task} at each number of training FLOPs", figure))
        rows += _stretches(evidence, task, flops, best, leaders)
    if not rows:
        return Section(key, title, absent="no task has curves over FLOPs of two sizes or settings.")
    return Section(
        key,
        title,
        (
            "Grey: the best mean over seeds that any size or setting has reached by then. The table has its "
            "stretches: from which number of training FLOPs on which size or setting holds it, and what it "
            "reaches there. Where lines end at different FLOPs, the frontier compares what was run, not what "
            "longer runs would reach.",
        ),
        tuple(pictures),
        pd.DataFrame(rows),
    )


def _curves(evidence: Evidence, curves: pd.DataFrame, task: str, group: Group, x: str) -> pd.DataFrame:
    of_group = evidence.of(group)
    wanted = of_group[of_group["task"] == task][["run_id", "task"]]
    chosen = curves.merge(wanted, on=["run_id", "task"])
    return chosen[chosen[x].notna()]


def _finish(axes: Axes, evidence: Evidence, task: str, x: str) -> None:
    axes.margins(x=0.02)
    axes.set_xlabel(_AXES[x])
    if x == "train_flops":  # sizes lie decades apart
        axes.set_xscale("log")
        log_axis(axes.xaxis, *axes.get_xlim())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_ylabel(value_label(evidence.runs.metric))
    axes.set_title(task)
    if task in evidence.runs.random_returns:
        random = evidence.runs.random_returns[task]
        axes.axhline(random, label="random", color="#888888", linewidth=1.2, linestyle=(0, (4, 3)))
    name_lines(axes)


def _end_of_curve(evidence: Evidence, task: str, group: Group, curves: pd.DataFrame) -> dict[str, Any]:
    steps, mean, low, high = mean_curve(curves)
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


def _envelope(lines: dict[Group, Any]) -> tuple[np.ndarray, np.ndarray, list[Group]]:
    """Places, the best mean so far, and whose it is, at each place."""
    start = min(places[0] for places, _ in lines.values())
    stop = max(places[-1] for places, _ in lines.values())
    own = np.concatenate([places for places, _ in lines.values()])
    flops = np.union1d(np.geomspace(start, stop, _FRONTIER_POINTS), own)
    values = np.array(
        [np.interp(flops, places, mean, left=-np.inf, right=-np.inf) for places, mean in lines.values()]
    )
    best: list[float] = []
    leaders: list[Group] = []
    for place, leader in enumerate(values.argmax(axis=0)):
        value = values[leader, place]
        is_better = not best or value > best[-1]
        best.append(value if is_better else best[-1])
        leaders.append(list(lines)[leader] if is_better else leaders[-1])
    return flops, np.array(best), leaders


def _stretches(
    evidence: Evidence, task: str, flops: np.ndarray, best: np.ndarray, leaders: list[Group]
) -> list[dict[str, Any]]:
    rows = []
    begins = [k for k, leader in enumerate(leaders) if k == 0 or leader != leaders[k - 1]]
    for begin, end in zip(begins, [*begins[1:], len(leaders)], strict=True):
        own = evidence.of(leaders[begin])
        rows.append(
            {
                "task": task,
                "from_flops": flops[begin],
                "to_flops": flops[end - 1],
                "model_size": leaders[begin][0],
                "setting": leaders[begin][1],
                "reaches": best[end - 1],
                RUN_IDS: tuple(own[own["task"] == task]["run_id"]),
            }
        )
    return rows
