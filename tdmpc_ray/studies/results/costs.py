"""What evaluations had cost when they were made: wall time, and FLOPs of updates and of planning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from tdmpc_ray.studies.results.histories import at_steps, read_histories
from tdmpc_ray.studies.results.study_runs import CHANGES, MOVED, VALIDATION, StudyRuns
from tdmpc_ray.studies.results.trial_rows import ACT_FLOPS, TRAIN_FLOPS, WALL_S
from tdmpc_ray.studies.tracking.client import absolute_uri, connect

_LOSSES = ("td_error", "consistency", "reward")
_COSTS = {"wall_s": WALL_S, "train_flops": TRAIN_FLOPS, "act_flops": ACT_FLOPS}  # column to metric


def with_costs(runs: StudyRuns, uri: str) -> StudyRuns:
    """The same runs, with what their evaluations had cost.

    Args:
        runs: as read from MLflow.
        uri: address of MLflow.

    Returns:
        `curves` with wall_s, train_flops, act_flops and their sum flops, interpolated between reports where
        an evaluation was made beside the training; NaN where not logged, but flops are those of the updates
        where planning's were not. A run that is shown once for each of its tasks has its share each time.
        `changes` are those of a population.
    """
    client = connect(absolute_uri(uri))
    curves = runs.curves.copy()
    curves[list(_COSTS)] = float("nan")
    of_runs = {str(run_id): rows for run_id, rows in curves.groupby("run_id")}
    parts = dict(zip(runs.trials["run_id"], runs.trials["parts"], strict=True))
    for column, metric in _COSTS.items():
        histories = read_histories(client, list(of_runs), metric)
        spent = [
            pd.Series(at_steps(histories.get(run_id, ()), rows["step"]) / parts[run_id], index=rows.index)
            for run_id, rows in of_runs.items()
        ]
        curves[column] = pd.concat(spent)
    curves["flops"] = curves["train_flops"] + curves["act_flops"].fillna(0.0)
    return replace(runs, curves=curves, changes=_changes(client, runs), validation=_validation(client, runs))


def _validation(client: Any, runs: StudyRuns) -> pd.DataFrame:
    """What trials have reported of episodes kept from training, see `StudyRuns.validation`."""
    ids, rows = list(runs.trials["run_id"].unique()), []
    for metric in (f"{prefix}{loss}" for loss in _LOSSES for prefix in ("", "seen_")):
        found = read_histories(client, ids, f"validation/{metric}")
        if not found:  # no trial has any
            break
        rows += [
            (run_id, metric, point.step, point.value) for run_id, points in found.items() for point in points
        ]
    return pd.DataFrame(rows, columns=VALIDATION)


def _changes(client: Any, runs: StudyRuns) -> pd.DataFrame:
    """What a population has changed, see `StudyRuns.changes`."""
    rows = [
        (run_id, metric.removeprefix(MOVED), point.step, point.value)
        for metric in runs.moved
        for run_id, history in read_histories(client, list(runs.trials["run_id"]), metric).items()
        for point in history
    ]
    return pd.DataFrame(rows, columns=CHANGES)
