"""What evaluations had cost when they were made: wall time and training FLOPs, and the energy of trials."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tdmpc_ray.studies.results.study_runs import TRAIN_FLOPS, WALL_S, StudyRuns
from tdmpc_ray.studies.tracking.client import absolute_uri, connect

_COSTS = {"wall_s": WALL_S, "train_flops": TRAIN_FLOPS}  # column to metric
ENERGY_WH = "system/gpu_energy_wh"


def with_costs(runs: StudyRuns, uri: str) -> StudyRuns:
    """The same runs, with their costs.

    Args:
        runs: as read from MLflow.
        uri: address of MLflow.

    Returns:
        `curves` with wall_s and train_flops, interpolated between reports where an evaluation was made beside
        the training; `trials` with energy_kwh, of the GPUs that system metrics saw. NaN where not logged. A
        run that is shown once for each of its tasks has its share each time.
    """
    client = connect(absolute_uri(uri))
    curves, trials = runs.curves.copy(), runs.trials.copy()
    curves[list(_COSTS)] = float("nan")
    energies = [client.get_run(run_id).data.metrics.get(ENERGY_WH) for run_id in trials["run_id"]]
    trials["energy_kwh"] = pd.Series(energies, dtype=float, index=trials.index) / 1e3 / trials["parts"]
    parts = dict(zip(trials["run_id"], trials["parts"], strict=True))
    for run_id, rows in curves.groupby("run_id"):
        for column, metric in _COSTS.items():
            spent = at_steps(client, str(run_id), metric, rows["step"])
            curves.loc[rows.index, column] = spent / parts[str(run_id)]
    return replace(runs, curves=curves, trials=trials)


def at_steps(client: Any, run_id: str, metric: str, steps: Any) -> np.ndarray:
    """Values of a rising metric at steps; NaN outside of what was logged."""
    history = {p.step: p.value for p in _by_time(client, run_id, metric)}
    if not history:
        return np.full(len(steps), np.nan)
    logged = np.array(sorted(history), dtype=float)
    values = np.array([history[step] for step in sorted(history)])
    return np.interp(np.asarray(steps, dtype=float), logged, values, left=np.nan, right=np.nan)


def _by_time(client: Any, run_id: str, metric: str) -> list[Any]:
    return sorted(client.get_metric_history(run_id, metric), key=lambda point: (point.timestamp, point.step))
