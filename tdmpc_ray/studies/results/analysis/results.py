"""What came out: learning curves, results over model size, and the table that `compare` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tdmpc_ray.studies.results.analysis.section import Evidence, Picture, Section, panel
from tdmpc_ray.studies.results.drawing import name_lines, value_label
from tdmpc_ray.studies.results.figures import AXES, draw_learning, draw_sizes, shown_groups
from tdmpc_ray.studies.results.random_policy import RUN_IDS, with_random
from tdmpc_ray.studies.results.scaling import mean_interval
from tdmpc_ray.studies.results.statistics import result_bounds
from tdmpc_ray.studies.results.study_runs import Group, StudyRuns, counted

_GROUP = ["task", "model_size", "setting"]


def summary_table(runs: StudyRuns) -> pd.DataFrame:
    """Summarise a study, one row per task, model size and setting, and one per task for the random policy.

    A row has the trials that are `counted`.

    Returns:
        Columns task, model_size, setting (see `StudyRuns`), params, seeds, unfinished (trials), stopped_early
        (whether a scheduler has ended what is counted, so that it had fewer steps than others), final (mean
        over seeds of the last evaluation), low, high (its 95% interval, NaN for one seed), best (of any
        evaluation), env_steps (mean per trial), hours (sum over trials), steps_per_s (mean), run_ids.
    """
    trials = runs.trials
    results = counted(trials)
    finals = {key: values.to_numpy(dtype=float) for key, values in results.groupby(_GROUP)["final"]}
    table = results.groupby(_GROUP).agg(
        params=("params", "max"),
        best=("best", "max"),
        env_steps=("env_steps", "mean"),
        hours=("hours", "sum"),
        steps_per_s=("steps_per_s", "mean"),
        stopped_early=("stopped_early", lambda words: bool((words != "").any())),
        **{RUN_IDS: ("run_id", tuple)},
    )
    table["unfinished"] = (trials["status"] != "FINISHED").groupby([trials[name] for name in _GROUP]).sum()
    known = table.to_dict("index")
    rows: list[dict[str, Any]] = []
    for task in runs.tasks:
        for key in ((task, *group) for group in runs.groups):
            if key in known:
                low, high = mean_interval(finals[key], result_bounds(task, runs.metric))
                who = dict(zip(_GROUP, key, strict=True))
                found = {"seeds": len(finals[key]), "final": finals[key].mean(), "low": low, "high": high}
                rows.append({**who, **known[key], **found})
    return with_random(pd.DataFrame(rows), runs.random_rows("final"))


def results(evidence: Evidence) -> Section:
    """Panels per task, and a row per task, size and setting; here all that was evaluated is shown."""
    runs = evidence.runs
    curves = runs.curves
    logged = {
        "env_steps": True,
        "hours": curves["wall_s"].notna().any(),
        "flops": (curves["flops"] > 0).any(),
    }
    if runs.is_population:  # hours and FLOPs came with the networks of others
        logged = {"env_steps": True}
    known = [x for x in AXES if logged.get(x)]
    why = "Those of a member are its donors', too" if runs.is_population else "Not logged"
    missing = [name for x, name in AXES.items() if x not in known]
    summary = summary_table(runs)
    shown = shown_groups(runs)
    colours = {group: evidence.colours[group] for group in shown}
    some = f"Drawn are the {len(shown)} best of {len(runs.groups)} lines."
    return Section(
        "results",
        "Results",
        (
            f"{value_label(runs.metric).capitalize()}: means over seeds, with the 95% interval of the mean "
            "(Student's t) as a band or bar; single seeds are faint. A line ends where its first seed ends.",
            *(f"{said[0].upper()}{said[1:]}." for said in unlike(summary, runs).values()),
            *([some] if len(shown) < len(runs.groups) else []),
            f"{evidence.flops_words()} Before the first update there are none, and so no place over them.",
            *([f"{why}, so not drawn: {', '.join(missing)}."] if missing else []),
        ),
        tuple(picture for task in runs.tasks for picture in _pictures(runs, colours, task, known)),
        summary,
    )


def unlike(summary: pd.DataFrame, runs: StudyRuns) -> dict[str, str]:
    """What keeps rows of a summary from being compared: the mark of such a row to a sentence."""
    said = {}
    if (summary["unfinished"] > 0).any():
        said["*"] = "some trials have not finished; where none of a row has, their newest evaluations count"
    if summary["stopped_early"].isin([True]).any():
        said["+"] = "stopped early by the scheduler, at fewer steps: not to be compared with the others"
    least = summary["task"].map(runs.random_returns)
    if worse := int((summary["final"] < least).sum()):
        said[""] = f"below the random policy: {worse} of {len(summary) - len(runs.random_returns)} rows"
    return said


def _pictures(runs: StudyRuns, colours: Mapping[Group, Any], task: str, known: list[str]) -> list[Picture]:
    what, pictures = value_label(runs.metric), []
    for x in known:
        with panel() as (figure, axes):
            draw_learning(axes, runs, task, colours, x)
            name_lines([axes])
        alt = f"{what} on {task} over {AXES[x]}, a line per model size and setting"
        pictures.append(Picture(f"{task}-{x.replace('_', '-')}", alt, figure))
    with panel() as (figure, axes):
        draw_sizes(axes, runs, task, colours)
        axes.set_title(f"{task}, after training")
    alt = f"{what} on {task} at the end over parameters, a point per model size and setting"
    return [*pictures, Picture(f"{task}-params", alt, figure)]
