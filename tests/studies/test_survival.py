"""Processes of a real run are killed: it goes on with replay, optimizers and counters, in the same curve."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from driver import Driver

from tdmpc_ray.rllib.checkpoints.manifest import read_manifest

STEPS, EVERY = 1200, 100


def train(folder: Path, store: str, overrides: dict[str, object], *options: str) -> Driver:
    settings = {**overrides, "data.seed_steps": 100}
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = ["train", "--task", "gym:Pendulum-v1", "--model-size", "tiny", "--steps", str(STEPS), *given]
    command += ["--checkpoint-every", str(EVERY), "--eval-every", str(STEPS), "--eval-episodes", "1"]
    command += ["--mlflow-uri", store, "--experiment", "exp", "--out", "out", *options]
    return Driver(folder, "-m", "tdmpc_ray.cli", *command)


def steps_saved(folder: Path) -> int:
    """Transitions in the newest checkpoint."""
    found = sorted(folder.glob("out/tune/*/checkpoint_*/manifest.json"))
    shards = read_manifest(found[-1].parent)["replay"]["shards"] if found else []
    return sum(shard["transitions"] for shard in shards)


def is_whole(folder: Path, store: str, mlflow_read: SimpleNamespace) -> Any:
    """Check the one curve of the run; returns the run."""
    assert steps_saved(folder) == STEPS
    runs = mlflow_read.runs(store, "exp")
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    (run,) = (run for name, run in runs.items() if name.startswith("size="))
    assert run.data.metrics["time/env_steps"] == STEPS
    assert run.data.metrics["time/grad_updates"] == STEPS
    for metric in ("time/env_steps", "time/grad_updates", "train/loss/total", "time/wall_s"):
        points = mlflow_read.points(store, run, metric)
        steps = [step for step, _ in points]
        assert len(set(steps)) == len(steps), f"{metric} is there twice at a step"
        if metric in ("time/env_steps", "time/grad_updates"):
            assert [value for _, value in points] == sorted(value for _, value in points)
    # Networks, optimizers and replay go on: begun anew, the loss would be what it was.
    losses = [value for _, value in mlflow_read.points(store, run, "train/loss/total")]
    assert losses[-1] < 0.7 * losses[0]
    return run


@pytest.mark.timeout(600)
def test_a_killed_driver_is_resumed(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace, tiny_overrides: dict[str, object]
) -> None:
    driver = train(tmp_path, store, tiny_overrides)
    driver.wait_for(lambda: steps_saved(tmp_path) >= 3 * EVERY, 240)
    driver.kill()
    assert driver.left_behind() == []
    before = steps_saved(tmp_path)
    assert before < STEPS
    killed = mlflow_read.runs(store, "exp").values()
    assert {run.info.status for run in killed} == {"RUNNING"}  # nobody was left to say otherwise
    ids = {run.info.run_id for run in killed}

    driver = Driver(tmp_path, "-m", "tdmpc_ray.cli", "resume", "out")
    assert driver.end() == 0, driver.log.read_text()
    run = is_whole(tmp_path, store, mlflow_read)
    assert {run.info.run_id for run in mlflow_read.runs(store, "exp").values()} == ids
    # It began where the last checkpoint was, not anew: the steps that were taken twice are few.
    took = [step for step, _ in mlflow_read.points(store, run, "time/env_steps")]
    assert {step for step in took if step > before}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", ["trial", pytest.param("learner", marks=pytest.mark.slow)])
def test_a_killed_process_is_replaced(
    store: str, tmp_path: Path, mlflow_read: SimpleNamespace, tiny_overrides: dict[str, object], role: str
) -> None:
    options = ("--num-learners", "1") if role == "learner" else ()
    driver = train(tmp_path, store, tiny_overrides, *options)
    title = {"trial": "ray::TDMPC2", "learner": "ray::_WrappedExecutable"}[role]
    driver.wait_for(lambda: steps_saved(tmp_path) >= 3 * EVERY, 240)
    (pid,) = driver.processes(title)
    os.kill(pid, signal.SIGKILL)
    assert driver.end() == 0, driver.log.read_text()
    is_whole(tmp_path, store, mlflow_read)
    assert driver.left_behind() == []
