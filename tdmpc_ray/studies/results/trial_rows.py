"""A trial's run in MLflow as a row of a table, and its evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tdmpc_ray.studies.results.histories import Point
from tdmpc_ray.studies.results.task_sets import Share
from tdmpc_ray.studies.tracking.study_run import STOPPED_EARLY

PARAM_COUNT = "summary/params_total"
WALL_S = "time/wall_s"
TRAIN_FLOPS = "time/train_flops"
ACT_FLOPS = "time/act_flops"
SIM_S = "time/sim_s"
ENERGY_WH = "system/gpu_energy_wh"
ENV_STEPS = "time/env_steps"
ENV_FRAMES = "time/env_frames"
EMBEDDING = "embedding/"  # see `task_map`
SPENT = "spent/"  # see `MLflowTracker`

_NAN = float("nan")


def identity(run: Any, share: Share) -> dict[str, Any]:
    """What tells a run's rows from those of others."""
    params = run.data.params
    return {
        "run_id": run.info.run_id,
        "parent": run.data.tags["mlflow.parentRunId"],
        "task": share.task,
        "model_size": params.get("model_size", "default"),
        "seed": params.get("seed", "0"),
    }


def curve_of(history: Sequence[Point]) -> dict[int, float]:
    """Steps to values, in their order.

    Steps that were run again after a crash are there twice, and a member of a population that goes on from a
    donor with fewer steps leaves its own behind: what was logged later counts.
    """
    curve: dict[int, float] = {}
    reached = float("inf")
    for point in sorted(history, key=lambda point: (point.timestamp, point.step), reverse=True):
        if point.step < reached:
            reached = point.step
            curve[point.step] = point.value
    return dict(reversed(curve.items()))


def _frames_per_step(run: Any, curve: dict[int, float]) -> int:
    """Environment frames per agent step; 1 where not known."""
    env_steps = _env_steps(run, curve)
    return round(run.data.metrics.get(ENV_FRAMES, 0) / env_steps) or 1 if env_steps else 1


def points_of(run: Any, share: Share, curve: dict[int, float]) -> list[dict[str, Any]]:
    """A row per evaluation."""
    who, ratio = identity(run, share), _frames_per_step(run, curve)
    return [
        {
            **who,
            "env_steps": step // share.parts,
            "env_frames": step * ratio // share.parts,
            "value": value,
            "step": step,
        }
        for step, value in curve.items()
    ]


def row_of(run: Any, share: Share, curve: dict[int, float]) -> dict[str, Any]:
    """The run's row: see `StudyRuns.trials`."""
    params, metrics = run.data.params, run.data.metrics
    env_steps = _env_steps(run, curve)
    seconds = _spent(run, WALL_S) if WALL_S in metrics else _duration_s(run)
    steps_taken = metrics.get(f"{SPENT}env_steps", env_steps)
    train_flops, act_flops = _spent(run, TRAIN_FLOPS), _spent(run, ACT_FLOPS)
    return {
        **identity(run, share),
        "name": run.info.run_name,
        "status": run.info.status,
        "stopped_early": run.data.tags.get(STOPPED_EARLY, ""),
        "params": metrics.get(PARAM_COUNT, _NAN),
        "env_steps": env_steps // share.parts,
        "hours": seconds / 3600 / share.parts,
        "steps_taken": steps_taken / share.parts,
        "steps_per_s": steps_taken / seconds if seconds else _NAN,
        "train_flops": train_flops / share.parts,
        "act_flops": act_flops / share.parts,
        "flops": (train_flops + (0.0 if act_flops != act_flops else act_flops)) / share.parts,
        "sim_hours": _spent(run, SIM_S) / 3600 / share.parts,
        "energy_kwh": metrics.get(ENERGY_WH, _NAN) / 1e3 / share.parts,
        "final": curve[max(curve)] if curve else _NAN,
        "best": max(curve.values(), default=_NAN),
        **{f"param.{key}": value for key, value in params.items()},
        "parts": share.parts,
    }


def embeddings_of(run: Any) -> list[dict[str, Any]]:
    """Places of the run's tasks on their map: see `StudyRuns.embeddings`."""
    metrics = run.data.metrics
    names = [name.removeprefix(EMBEDDING).removesuffix("/x") for name in metrics if name.endswith("/x")]
    return [
        {
            "run_id": run.info.run_id,
            "task": task,
            "x": metrics[f"{EMBEDDING}{task}/x"],
            "y": metrics[f"{EMBEDDING}{task}/y"],
            "shown": metrics[f"{EMBEDDING}shown"],
        }
        for task in sorted(names)
        if f"{EMBEDDING}{task}/y" in metrics
    ]


def _spent(run: Any, metric: str) -> float:
    """What the trial itself has spent: a total may have come with another one's checkpoint."""
    metrics = run.data.metrics
    own = metrics.get(SPENT + metric.removeprefix("time/"), metrics.get(metric, _NAN))
    return float(own)


def _env_steps(run: Any, curve: dict[int, float]) -> int:
    return int(run.data.metrics.get(ENV_STEPS, max(curve, default=0)))


def _duration_s(run: Any) -> float:
    """Seconds from start to end; a run that goes on has no end yet."""
    return (run.info.end_time - run.info.start_time) / 1000 if run.info.end_time else 0.0
