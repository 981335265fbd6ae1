"""Synthetic studies in a real MLflow, with known answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tdmpc_ray.studies.tracking.callback import MLflowTracker

EXPERIMENT = "synthetic"
PARAMS = {"1": 960_000, "5": 5_300_000, "19": 19_300_000, "48": 48_200_000, "317": 316_900_000}
EXPONENT = 0.25
STEPS = tuple(range(1000, 11_000, 1000))


def final_gap(size: str) -> float:
    """1 - score after training: a power law of the parameters."""
    return 0.75 * (PARAMS[size] / 1e6) ** -EXPONENT


def wall_s(size: str, step: int) -> float:
    """Mean over seeds, of which the first are faster."""
    return step * PARAMS[size] ** 0.3 / 20


def train_flops(size: str, step: int) -> float:
    return 6.0 * PARAMS[size] * 256 * step


FLOOR, OF_RATIO, OF_SIZE = 600.0, (900.0, 0.9), (1200.0, 0.6)  # terms at ratio 1 and 1M parameters, exponents
TOP = 900.0  # what returns come near to


def law_steps(size: str, ratio: float, threshold: float) -> float:
    """Agent steps to a return, in studies of `log_law_study`."""
    of_size = OF_SIZE[0] * (PARAMS[size] / 1e6) ** -OF_SIZE[1]
    pace = FLOOR + OF_RATIO[0] * ratio ** -OF_RATIO[1] + of_size
    return -math.log(1 - threshold / TOP) * pace


def log_law_study(
    drive: Any,
    uri: str,
    folder: Path,
    study: str,
    *,
    sizes: Sequence[str] = tuple(PARAMS),
    ratios: Sequence[float] = (0.25, 0.5, 1.0, 2.0),
    seeds: int = 3,
    noise: float = 0.1,
    acting: float = 0.5,
) -> None:
    """Write a study whose runs reach each return after `law_steps`, noisy in its logarithm.

    Args:
        drive: the fixture.
        uri, folder, study: as for `log_study`.
        sizes, ratios, seeds: a trial for each of all.
        noise: standard deviation of the logarithm.
        acting: FLOPs of a decision, as a multiple of an update's.
    """
    about = {"study": study, "spool_dir": folder / study, "evaluation_every": STEPS[0]}
    tracker = MLflowTracker(uri=uri, experiment=EXPERIMENT, **about)
    tracker.setup()
    calls, rng = drive(tracker), np.random.default_rng(0)
    for size, ratio, seed in product(sizes, ratios, range(seeds)):
        config = {"model_size": size, "seed": seed, "task": "walker-walk", "data.utd_ratio": ratio}
        trial = drive.trial(f"{size}-{ratio}-{seed}", **config)
        calls.start(trial)
        pace = law_steps(size, ratio, TOP * (1 - math.exp(-1))) * math.exp(noise * rng.standard_normal())
        for step in STEPS:
            update = 6.0 * PARAMS[size] * 256
            report = {
                "time__env_steps": step,
                "time__env_frames": 2 * step,
                "time__wall_s": step * (0.01 + 1e-11 * update * (ratio + acting)),
                "time__train_flops": update * ratio * step,
                "time__act_flops": acting * update * step,
                "time__sim_s": step / 500,
                "summary__params_total": PARAMS[size],
                "eval__return": TOP * (1 - math.exp(-step / pace)),
            }
            for loss in ("td_error", "consistency", "reward"):  # the gap grows with the ratio
                report[f"validation__seen_{loss}"] = 1 / step
                report[f"validation__{loss}"] = (1 + ratio) / step
            calls.result(trial, step, **report)
        calls.complete(trial)
    tracker.study_run.log_metrics({"baseline/random_return": 0.0})
    assert tracker.close("FINISHED") is None


def _report(size: str, step: int, final: float, pace: float, acting: float | None) -> dict[str, float]:
    """What a trial tells at a step, whose return will be `final` at the end."""
    progress = 1 - math.exp(-4 * step / STEPS[-1])
    report = {
        "time__env_steps": step,
        "time__env_frames": 2 * step,
        "time__wall_s": wall_s(size, step) * pace,
        "time__train_flops": train_flops(size, step),
        "summary__params_total": PARAMS[size],
        "summary__log10_params": math.log10(PARAMS[size]),
        "eval__return": final * progress / (1 - math.exp(-4)),
        "perf__plan_ms": 5.0,
    }
    if acting is not None:
        report |= {"time__act_flops": acting * train_flops(size, step), "time__sim_s": step / 100}
    return report


def log_study(
    drive: Any,
    uri: str,
    folder: Path,
    study: str,
    *,
    sizes: Sequence[str] = tuple(PARAMS),
    seeds: int = 3,
    tasks: Sequence[str] = ("walker-walk", "cheetah-run"),
    settings: Sequence[Mapping[str, Any]] = ({},),
    bonus: Callable[[Mapping[str, Any]], float] = lambda setting: 0.0,
    noise: float = 0.03,
    acting: Callable[[Mapping[str, Any]], float] | None = None,
) -> MLflowTracker:
    """Write a study as Tune would: returns of 1000 (1 - gap) + bonus, rising over ten evaluations.

    Args:
        drive: the fixture.
        uri: address of MLflow.
        folder: where the study's spool may lie.
        study: name.
        sizes: model sizes.
        seeds: per size, task and setting.
        tasks: names.
        settings: parameters of the trials, a trial for each.
        bonus: what a setting adds to the final return.
        noise: standard deviation of the gap's logarithm.
        acting: FLOPs of a setting's planning, as a multiple of the updates'; None: not logged.

    Returns:
        The tracker, closed.
    """
    about = {"study": study, "spool_dir": folder / study, "evaluation_every": STEPS[0]}
    tracker = MLflowTracker(uri=uri, experiment=EXPERIMENT, **about)
    tracker.setup()
    calls = drive(tracker)
    rng = np.random.default_rng(0)
    for task in tasks:
        for size in sizes:
            for setting in settings:
                for seed in range(seeds):
                    config = {"model_size": size, "seed": seed, "task": task, **setting}
                    trial = drive.trial(f"{task}-{size}-{seed}-{list(setting.values())}", **config)
                    calls.start(trial)
                    final = 1000 * (1 - final_gap(size) * math.exp(noise * rng.standard_normal()))
                    final += bonus(setting)
                    pace = 1 + 0.1 * (seed - (seeds - 1) / 2)
                    for step in STEPS:
                        report = _report(size, step, final, pace, acting and acting(setting))
                        calls.result(trial, step, **report)
                    calls.complete(trial)
    names = {f"baseline/random_return/{task}": 39.0 for task in tasks}
    tracker.study_run.log_metrics({"baseline/random_return": 39.0} if len(tasks) == 1 else names)
    assert tracker.close("FINISHED") is None
    return tracker
