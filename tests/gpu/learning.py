"""Part 5: walker-walk at size 5 with paper settings, for as long as the time allows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray
from gpu.on_ray import learning_on, start_ray
from gpu.sections import Check, Section
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS

from tdmpc_ray.rllib import TDMPC2, TDMPC2Config

TASK = "walker-walk"
_CURVES = (
    Path(__file__).parents[2] / "tdmpc_ray" / "studies" / "results" / "data" / "published_curves.parquet"
)


def run(check: Check) -> Section:
    section = Section(
        "Learning",
        f"{TASK}, size 5, paper settings, learner and runner on the GPU, updates after every step. *return* "
        "of ten episodes at the end; *published*: mean over the seeds at as many frames.",
        ("steps", "frames", "updates", "steps/s", "1M steps h", "return", "published"),
        check.file,
    )
    start_ray(check)
    algo = build(check)
    try:
        rate = train(check, algo, reserve=20.0 if check.quick else 60.0)  # for the evaluation
        frames, hours = 2 * algo.env_steps, 1e6 / rate / 3600
        published_return = published(frames)
        section.verdict("1M steps, walker-walk", "under 1 h", f"{hours:.2f} h", check.judged(hours < 1))
        section.row(algo.env_steps, frames, algo.grad_updates, f"{rate:.1f}", f"{hours:.2f}", "not reached",
                    "none" if published_return is None else f"{published_return:.0f}")  # fmt: skip
        before = time.perf_counter()
        achieved = evaluated(algo.evaluate())
        section.rows[0][5] = f"{achieved:.0f}"
        section.text += f" The evaluation took {time.perf_counter() - before:.0f} s."
    finally:
        algo.stop()
        ray.shutdown()
    return section


def build(check: Check) -> TDMPC2:
    config = TDMPC2Config().environment(TASK)
    overrides: dict[str, Any] = {}
    if check.quick:
        overrides = {"data.seed_steps": 100, "planner.num_samples": 16, "planner.num_elites": 4,
                     "planner.num_pi_trajs": 2, "planner.iterations": 2, "update.batch_size": 16}  # fmt: skip
    config.training(model_size="tiny" if check.quick else "5", overrides=overrides, steps_per_iteration=100)
    config.evaluation(evaluation_interval=1_000_000, evaluation_duration=1 if check.quick else 10)
    return learning_on(check, config, 1).debugging(seed=0, log_level="ERROR").build_algo()


def train(check: Check, algo: TDMPC2, reserve: float) -> float:
    """Until the time is over; agent steps per second once the random steps' updates are made."""
    steps, started, is_warm = 0, time.perf_counter(), False
    while check.seconds_left > reserve:
        algo.train()
        if not is_warm:  # the first planned steps compile
            is_warm = (
                algo.env_steps > algo.progress.pace.random_steps
                and algo.grad_updates > algo.progress.pace.random_steps
            )
            steps, started = algo.env_steps, time.perf_counter()
        elif check.quick and algo.env_steps >= 200:
            break
    if algo.env_steps == steps:
        raise RuntimeError(f"only {algo.grad_updates} updates were made in the time that there was")
    return (algo.env_steps - steps) / (time.perf_counter() - started)


def evaluated(result: dict[str, Any]) -> float:
    result = result.get(EVALUATION_RESULTS, result)
    return float(result[ENV_RUNNER_RESULTS]["episode_return_mean"])


def published(frames: int) -> float | None:
    """Mean return of the published seeds, interpolated; None before their first point."""
    import numpy as np
    import pandas as pd

    curves = pd.read_parquet(_CURVES)
    rows = curves[(curves.algorithm == "tdmpc2") & (curves.task == TASK) & (curves.metric == "reward")]
    mean = rows.groupby("env_frames").value.mean()
    return None if mean.empty or frames < mean.index[0] else float(np.interp(frames, mean.index, mean.values))
