"""What FLOPs buy: the best result at each number of them, and the power law of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import log_axis, name_lines, value_label
from tdmpc_ray.studies.results.figures import AXES
from tdmpc_ray.studies.results.random_policy import RUN_IDS, with_random
from tdmpc_ray.studies.results.scaling import MIN_SIZES, Floats, PowerLaw, fit_power_law
from tdmpc_ray.studies.results.study_runs import Group

_POINTS = 200
_MOST_PLACES = 2000
_RESAMPLES = 100
_DONORS = "what the networks of a population's member took, other members have paid for."


def frontier_law(evidence: Evidence) -> PowerLaw | str:
    """The law of the gap to the best possible score over FLOPs, along the frontier, or why there is none.

    Ends of runs say little about what FLOPs can buy: a size that ends below another one that took as many
    does not lie on the frontier, and does not count.
    """
    if evidence.runs.is_population:
        return _DONORS.rstrip(".")
    if not all(scale.has_ceiling for scale in evidence.scales.values()):
        return "the best possible result is not known on every task, so neither is the gap to it"
    lines = _score_lines(evidence)
    if len(lines) < 2:
        return "it takes curves over FLOPs of at least two sizes or settings"
    ends = _last_steps({group: (places, scores.mean(axis=0)) for group, (places, scores) in lines.items()})
    if len(ends) < MIN_SIZES:
        return (
            f"the frontier over FLOPs has {len(ends)} stretch{'es' * (len(ends) != 1)}, at least {MIN_SIZES} "
            "are needed to identify its three parameters"
        )
    gaps = [1 - lines[group][1][:, lines[group][0] == place].ravel() for place, group in ends]
    if any((gap <= 0).any() for gap in gaps):
        return "some runs reach the best possible score, and a gap of 0 has no logarithm"
    return fit_power_law([place for place, _ in ends], gaps, resamples=_RESAMPLES)


def frontier(evidence: Evidence) -> Section:
    """The best mean so far of any group at each number of FLOPs, and whose it is."""
    key, title = "frontier", "Compute-optimal frontier"
    runs = evidence.runs
    if runs.is_population:
        return Section(key, title, absent=_DONORS)
    if len(evidence.complete) < 2:
        return Section(key, title, absent="it takes at least two sizes or settings to choose from.")
    if not (runs.curves["flops"] > 0).any():
        return Section(key, title, absent="no trial has logged time/train_flops.")
    pictures, rows = [], []
    for task in runs.tasks:
        lines: dict[Group, Any] = {}
        for group in evidence.complete:
            if (task, group) in evidence.flops_lines:
                places, values = evidence.flops_lines[task, group]
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
            axes.set_xlabel(AXES["flops"])
            axes.set_ylabel(value_label(runs.metric))
            axes.set_title(task)
            name_lines([axes])
        pictures.append(Picture(task, f"Best mean so far on {task} at each number of FLOPs", figure))
        rows += _stretches(evidence, task, flops, best, leaders)
    random = [row | {"from_flops": 0.0, "to_flops": 0.0} for row in runs.random_rows("reaches")]
    if not rows:
        return Section(key, title, absent="no task has curves over FLOPs of two sizes or settings.")
    return Section(
        key,
        title,
        (
            "Grey: the best mean over seeds that any size or setting has reached by then. The table has its "
            "stretches: from which number of FLOPs on which size or setting holds it, and what it "
            "reaches there. Where lines end at different FLOPs, the frontier compares what was run, not what "
            "longer runs would reach.",
            evidence.flops_words(),
            *evidence.basis(),
        ),
        tuple(pictures),
        with_random(pd.DataFrame(rows), random, first=True),
    )


def _score_lines(evidence: Evidence) -> dict[Group, tuple[Floats, Floats]]:
    """Places in FLOPs and scores (seeds, places) of each group, averaged over tasks.

    Where tasks have other numbers of seeds, there is one line of means.
    """
    lines = {}
    for group in evidence.complete:
        of_tasks = []
        for task, scale in evidence.scales.items():
            if (task, group) in evidence.flops_lines:
                places, values = evidence.flops_lines[task, group]
                of_tasks.append((places, scale.scores(values)))
        if len(of_tasks) == len(evidence.scales):
            lines[group] = _mean_line(of_tasks)
    return {group: line for group, line in lines.items() if len(line[0])}


def _mean_line(of_tasks: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    start = max(places[0] for places, _ in of_tasks)
    stop = min(places[-1] for places, _ in of_tasks)
    common = np.unique(np.concatenate([places for places, _ in of_tasks]))
    common = common[(common >= start) & (common <= stop)]
    if len({len(scores) for _, scores in of_tasks}) > 1:
        of_tasks = [(places, scores.mean(axis=0, keepdims=True)) for places, scores in of_tasks]
    at_common = [[np.interp(common, places, seed) for seed in scores] for places, scores in of_tasks]
    return common, np.mean(at_common, axis=0)


def _last_steps(lines: dict[Group, tuple[Floats, Floats]]) -> list[tuple[float, Group]]:
    """Where each stretch of the frontier reaches its best, and whose it is."""
    own = sorted(
        (float(place), float(mean), group)
        for group, line in lines.items()
        for place, mean in zip(*line, strict=True)
    )
    ends: list[tuple[float, Group]] = []
    best = -np.inf
    for place, mean, group in own:
        if mean > best:
            best = mean
            ends = [*(ends[:-1] if ends and ends[-1][1] == group else ends), (place, group)]
    return ends


def _envelope(lines: dict[Group, Any]) -> tuple[np.ndarray, np.ndarray, list[Group]]:
    """Places, the best mean so far, and whose it is, at each place."""
    start = min(places[0] for places, _ in lines.values())
    stop = max(places[-1] for places, _ in lines.values())
    own = np.unique(np.concatenate([places for places, _ in lines.values()]))
    grid = np.geomspace(start, stop, _POINTS)
    # Of a search of many, the evaluations' own places would be more than anybody can see.
    flops = np.union1d(grid, own[:: -(-len(own) // _MOST_PLACES)])
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
