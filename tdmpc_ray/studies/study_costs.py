"""What evaluations had cost when they were made: wall time and training FLOPs, and the energy of trials."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np

from tdmpc_ray.studies.mlflow_client import absolute_uri, connect
from tdmpc_ray.studies.study_runs import TRAIN_FLOPS, WALL_S, StudyRuns

_COSTS = {"wall_s": WALL_S, "train_flops": TRAIN_FLOPS}  # column to metric
_GPU_POWER = re.compile(r"system/gpu_\d+_power_usage_watts")  # of MLflow's system metrics


def with_costs(runs: StudyRuns, uri: str) -> StudyRuns:
    """The same runs, with their costs.

    Args:
        runs: as read from MLflow.
        uri: address of MLflow.

    Returns:
        `curves` with wall_s and train_flops, interpolated between reports where an evaluation was made beside
        the training; `trials` with energy_kwh, of the GPUs that MLflow's system metrics saw. NaN where not
        logged.
    """
    client = connect(absolute_uri(uri))
    curves, trials = runs.curves.copy(), runs.trials.copy()
    curves[list(_COSTS)] = float("nan")
    trials["energy_kwh"] = [energy_kwh(client, run_id) for run_id in trials["run_id"]]
    for run_id, rows in curves.groupby("run_id"):
        for column, metric in _COSTS.items():
            curves.loc[rows.index, column] = at_steps(client, str(run_id), metric, rows["env_steps"])
    return replace(runs, curves=curves, trials=trials)


def at_steps(client: Any, run_id: str, metric: str, steps: Any) -> np.ndarray:
    """Values of a rising metric at steps; NaN outside of what was logged."""
    history = {p.step: p.value for p in _by_time(client, run_id, metric)}
    if not history:
        return np.full(len(steps), np.nan)
    logged = np.array(sorted(history), dtype=float)
    values = np.array([history[step] for step in sorted(history)])
    return np.interp(np.asarray(steps, dtype=float), logged, values, left=np.nan, right=np.nan)


def energy_kwh(client: Any, run_id: str) -> float:
    """Energy of a run's GPUs: their logged power integrated over time; NaN where none was logged."""
    names = [name for name in client.get_run(run_id).data.metrics if _GPU_POWER.fullmatch(name)]
    joules = 0.0
    for name in names:
        points = _by_time(client, run_id, name)
        seconds = np.array([point.timestamp for point in points]) / 1e3
        joules += float(np.trapezoid([point.value for point in points], seconds))
    return joules / 3.6e6 if names else float("nan")


def _by_time(client: Any, run_id: str, metric: str) -> list[Any]:
    return sorted(client.get_metric_history(run_id, metric), key=lambda point: (point.timestamp, point.step))
