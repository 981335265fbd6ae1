"""Evaluations once more, at steps and costs that the seeds of a group share, so that MLflow averages them.

MLflow averages seeds, and joins results with what they cost, by step, of which it samples few. So each
evaluation is logged to its trial as `curve/...`, at the step that it was due at, with the wall time and the
FLOPs that it took the seeds on average.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from tdmpc_ray.studies.results.histories import read_histories
from tdmpc_ray.studies.results.study_runs import StudyRuns
from tdmpc_ray.studies.tracking.study_run import EVALUATION_EVERY, now_ms

COSTS = {"wall_s": "curve/wall_s", "flops": "curve/flops"}  # column of `curves` to metric
_BATCH = 1000  # metrics that MLflow takes at once


def log_aligned(client: Any, runs: StudyRuns, parents: Iterable[Any]) -> None:
    """Log the curves of studies, as far as their trials do not have them.

    Args:
        client: of MLflow.
        runs: the studies, with costs (see `with_costs`).
        parents: the studies' runs.
    """
    every = runs.curves.assign(due=_due(runs.curves, parents))
    for _, curves in every.groupby(["task", "model_size", "setting"]):
        _log_curves(client, curves, curve_metric(runs.metric))


def curve_metric(metric: str) -> str:
    """`eval/return` as `curve/return`: the metric that `log_aligned` logs."""
    return f"curve/{metric.removeprefix('eval/')}"


def due_steps(steps: pd.Series, every: int) -> pd.Series:
    """The agent steps that a trial's evaluations were due at; they are made some steps late.

    Each is the first one from a multiple of `every` on. What comes after it before the next multiple came out
    of turn, at the run's end, and is due where it was made.
    """
    steps = steps.sort_values()
    due = steps // every * every
    return due.where(due > due.shift(fill_value=0), steps)


def _due(curves: pd.DataFrame, parents: Iterable[Any]) -> pd.Series:
    """Steps that all evaluations were due at, by what their study has said; without, those of their own."""
    every = {parent.info.run_id: int(parent.data.tags.get(EVALUATION_EVERY, 0)) for parent in parents}
    due = [
        due_steps(curve["step"], every[parent]) if every[parent] else curve["step"]
        for (parent, _, _), curve in curves.groupby(["parent", "run_id", "task"])
    ]
    tasks = (curves["step"] / curves["env_steps"]).round().astype(int)  # that share a trial's steps
    return pd.concat(due) // tasks


def _log_curves(client: Any, curves: pd.DataFrame, metric: str) -> None:
    """Log the evaluations of a group's seeds at the steps they were `due` at, with what they cost on average.

    The cost of a step is the mean over the seeds that had got there when it was logged first: MLflow would
    draw seeds of different costs as one line that goes back and forth.
    """
    logged = _logged(client, list(curves["run_id"].unique()), [metric, *COSTS.values()])
    curves = curves.copy()
    for column, name in COSTS.items():
        means = curves.groupby("due")[column].mean()
        known = {step: cost for histories in logged.values() for step, cost in histories[name].items()}
        curves[column] = curves["due"].map({**means, **known})
    for run_id, curve in curves.groupby("run_id"):
        points = [
            _metric(name, value, step)
            for column, name in {"value": metric, **COSTS}.items()
            for step, value in zip(curve["due"], curve[column], strict=True)
            if step not in logged[run_id][name] and np.isfinite(value)
        ]
        for first in range(0, len(points), _BATCH):
            client.log_batch(run_id, metrics=points[first : first + _BATCH])


def _logged(client: Any, run_ids: list[str], names: Iterable[str]) -> dict[str, dict[str, dict[int, float]]]:
    """Runs to metrics to their values by step."""
    histories = {name: read_histories(client, run_ids, name) for name in names}
    return {
        run_id: {
            name: {point.step: point.value for point in found.get(run_id, ())}
            for name, found in histories.items()
        }
        for run_id in run_ids
    }


def _metric(name: str, value: float, step: int) -> Any:
    from mlflow.entities import Metric

    return Metric(name, float(value), now_ms(), int(step))
