"""What the study cost, and how fast it went with more rollout workers."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.ticker import MaxNLocator

from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import name_lines, rank_colours
from tdmpc_ray.studies.results.random_policy import RUN_IDS, with_random
from tdmpc_ray.studies.results.scaling import Interval, mean_interval

WORKERS = "param.resources.num_env_runners"


def throughput(evidence: Evidence) -> Section:
    """Agent steps per second over the number of rollout workers, a line per model size."""
    key, title = "throughput", "Throughput against rollout workers"
    trials = evidence.runs.trials
    trials = trials[trials["steps_per_s"] > 0]
    if WORKERS not in trials or trials[WORKERS].isna().all():
        absent = "the trials do not say how many rollout workers they had (resources.num_env_runners)."
        return Section(key, title, absent=absent)
    trials = trials.dropna(subset=[WORKERS]).assign(workers=lambda rows: rows[WORKERS].astype(int))
    if trials["workers"].nunique() < 2:
        return Section(
            key, title, absent=f"every trial had {trials['workers'].iloc[0]}, so nothing to compare."
        )
    rows = []
    for size in evidence.runs.sizes:
        for workers, group in trials[trials["model_size"] == size].groupby("workers"):
            low, high = mean_interval(group["steps_per_s"], Interval(0.0, math.inf))
            rows.append(
                {
                    "model_size": size,
                    "rollout_workers": workers,
                    "trials": len(group),
                    "steps_per_s": group["steps_per_s"].mean(),
                    "low": low,
                    "high": high,
                    RUN_IDS: tuple(group["run_id"]),
                }
            )
    table = pd.DataFrame(rows)
    colours = rank_colours(evidence.runs.sizes)
    with panel() as (figure, axes):
        for size, group in table.groupby("model_size", sort=False):
            mean, style = group["steps_per_s"], {"color": colours[size], "capsize": 3, "marker": "o"}
            error = [mean - group["low"].fillna(mean), group["high"].fillna(mean) - mean]
            lines = axes.errorbar(group["rollout_workers"], mean, error, **style)
            lines.lines[0].set_label(f"size {size}")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("rollout workers per trial")
        axes.set_ylabel("agent steps per second")
        axes.set_title("Throughput")
        name_lines([axes])
    return Section(
        key,
        title,
        (
            "Agent steps per second of wall time, evaluations and restarts included: the mean over trials "
            "with its 95% interval. Trials that shared a machine slowed each other down, so lines of "
            "different studies compare only where these ran alike.",
        ),
        (Picture("throughput", "Agent steps per second over rollout workers, a line per size", figure),),
        table,
    )


def costs(evidence: Evidence) -> Section:
    """Hours, FLOPs and energy per size and setting, and in total; every trial counts."""
    runs = evidence.runs
    by_group = runs.trials.groupby(["task", "model_size", "setting"])
    sums = _sums(by_group)
    order = pd.MultiIndex.from_tuples(
        [key for task in runs.tasks for group in runs.groups if (key := (task, *group)) in sums.index],
        names=sums.index.names,
    )
    # A run of a set of tasks, beside its specialists, is there once for each task.
    once = runs.trials.drop_duplicates("run_id").assign(task="total", model_size="", setting="")
    everything = runs.trials.assign(task="total", model_size="", setting="")
    total = _sums(everything.groupby(["task", "model_size", "setting"]))
    total.update(_counts(once.groupby(["task", "model_size", "setting"])))
    table = with_random(sums.loc[order].reset_index(), runs.random_rows("final"))
    total = total.assign(final=math.nan).reset_index()
    table = pd.concat([table, total], ignore_index=True).dropna(axis="columns", how="all")
    whole = ["trials", "finished", "stopped_early", "env_steps"]
    table[whole] = table[whole].astype(int)
    lacking = (
        []
        if "energy_kwh" in table
        else ["Energy is left out: no trial has logged it (tracking: {system_metrics: true})."]
    )
    return Section(
        "costs",
        "What it cost",
        (
            "Every trial counts here, also failed and stopped ones. Hours are the trials' wall time, summed; "
            "trials that ran side by side count each. Simulation is the time of the environments' steps, "
            f"of all rollout workers together. {evidence.flops_words()}",
            *lacking,
        ),
        table=table,
    )


def _sums(groups: Any) -> pd.DataFrame:
    """What each group of trials has spent, and which they are."""
    spent = ["hours", "sim_hours", "train_flops", "act_flops", "energy_kwh"]
    sums = groups[spent].sum(min_count=1)
    steps, final = groups["steps_taken"].sum().rename("env_steps"), groups["final"].mean()
    return pd.concat([_counts(groups), steps, final, sums], axis=1)[
        ["trials", "finished", "stopped_early", "final", "env_steps", *spent, RUN_IDS]
    ]


def _counts(groups: Any) -> pd.DataFrame:
    return groups.agg(
        trials=("run_id", "size"),
        finished=("status", lambda status: int((status == "FINISHED").sum())),
        stopped_early=("stopped_early", lambda words: int((words != "").sum())),
        **{RUN_IDS: ("run_id", tuple)},
    )
