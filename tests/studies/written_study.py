"""Synthetic studies, written to MLflow as Tune would."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tdmpc_ray.studies.tracking.callback import MLflowTracker

PARAMS = {"tiny": 80_000, "1": 960_000, "19": 19_300_000}
STEPS = (1000, 2000, 3000)


def final_return(size: str, seed: int) -> float:
    return {"tiny": 300.0, "1": 600.0, "19": 900.0}[size] + 10 * seed


def run_study(
    drive: Any,
    uri: str,
    folder: Path,
    study: str,
    *,
    sizes: Sequence[str] = ("19", "tiny", "1"),
    seeds: int = 3,
    tasks: Sequence[str] = ("walker-walk",),
    evaluate: bool = True,
) -> str:
    """Write a synthetic study as Tune would; returns the parent's run id."""
    tracker = MLflowTracker(uri=uri, experiment="walkers", study=study, spool_dir=folder / study)
    tracker.setup()
    calls = drive(tracker)
    for task in tasks:
        for size in sizes:
            for seed in range(seeds):
                trial = drive.trial(f"{task}-{size}-{seed}", model_size=size, seed=seed, task=task)
                calls.start(trial)
                for step in STEPS:
                    report = {
                        "time__env_steps": step,
                        "time__env_frames": 2 * step,
                        "time__wall_s": step / 10,
                        "summary__params_total": PARAMS[size],
                    }
                    if evaluate:
                        # Best in the middle, so that `best` and `final` differ.
                        bonus = {1000: -200.0, 2000: 5.0, 3000: 0.0}[step]
                        report["eval__return"] = final_return(size, seed) + bonus
                    calls.result(trial, step, **report)
                calls.complete(trial)
    names = {"baseline/random_return": 39.0}
    if len(tasks) > 1:
        names = {f"baseline/random_return/{task}": 39.0 for task in tasks}
    tracker.study_run.log_metrics(names)
    assert tracker.close("FINISHED") is None
    run_id = tracker.parent_run_id
    assert run_id is not None
    return run_id
