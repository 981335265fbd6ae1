"""Learning from a dataset alone, through the same algorithm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.datasets.manifest import Source
from tdmpc_ray.datasets.writer import writing
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config, evaluate_checkpoint

TASKS = {"cartpole-balance": (5, 1), "reacher-easy": (6, 2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four episodes of random numbers of each task."""
    path, rng = tmp_path_factory.mktemp("offline") / "data", np.random.default_rng(0)
    with writing(path) as writer:
        source = writer.begin(Source(kind="episodes", place="random"))
        for task, (obs, action) in TASKS.items():
            for number in range(4):
                one = Episode(
                    f"episode {number}",
                    rng.standard_normal((31, obs)).astype(np.float32),
                    rng.uniform(-1, 1, (30, action)).astype(np.float32),
                    rng.uniform(0, 1, 30).astype(np.float32),
                )
                writer.add(one, source, task)
    return path


BOTH = "+".join(TASKS)


def config(folder: Path, overrides: dict[str, Any], task: str = BOTH, **training: Any) -> TDMPC2Config:
    made = TDMPC2Config().environment(task).debugging(seed=0, log_level="ERROR").offline_data(input_=folder)
    made.evaluation(evaluation_duration=1)
    settings = {"model_size": "tiny", "steps_per_iteration": 20, "max_time_s_per_iteration": 600, **training}
    return made.training(overrides=overrides, **settings)


def networks_of(algo: TDMPC2) -> dict[str, torch.Tensor]:
    module = algo.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()
    return {name: value.clone() for name, value in module.networks.state_dict().items()}


def test_a_run_counts_updates_is_evaluated_and_goes_on_bitwise(
    folder: Path, tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    whole = config(folder, tiny_overrides, total_steps=50, eval_every=30).build_algo()
    assert whole.learner_group._learner._loop._draws_ahead
    results = [whole.train() for _ in range(3)]
    assert [result["env_steps"] for result in results] == [20, 30, 50]
    assert [result["grad_updates"] for result in results] == [20, 30, 50]
    assert [result["done"] for result in results] == [False, False, True]
    reports = [result["report"] for result in results]
    assert "time/env_steps" not in reports[0]
    assert reports[0]["train/loss/total"] > 0
    assert reports[0]["time/train_flops"] > 0
    assert ["eval/return" in report for report in reports] == [False, True, True]
    assert {f"eval/{task}/return" for task in TASKS} <= reports[1].keys()
    assert {f"embedding/{task}/{axis}" for task in TASKS for axis in "xy"} <= reports[1].keys()
    assert "embedding/shown" not in reports[0]
    expected = networks_of(whole)
    whole.stop()
    half = config(folder, tiny_overrides, total_steps=50, eval_every=30).build_algo()
    half.train()
    half.save_to_path(tmp_path / "half")
    half.stop()
    again = config(folder, tiny_overrides, total_steps=50, eval_every=30).build_algo()
    again.restore_from_path(tmp_path / "half")
    assert [again.train()["env_steps"] for _ in range(2)] == [30, 50]
    found = networks_of(again)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    again.save_to_path(tmp_path / "done")
    again.stop()
    assert len(evaluate_checkpoint(tmp_path / "done", 1, seed=0, task="reacher-easy")["returns"]) == 1


def test_of_a_dataset_with_several_tasks_one_is_learned(folder: Path, tiny_overrides: dict[str, Any]) -> None:
    algo = config(folder, tiny_overrides, "reacher-easy", total_steps=20).build_algo()
    assert algo.learner_group._learner.replay.transitions_added == 120
    assert algo.train()["done"]
    algo.stop()


def test_learners_have_parts_of_their_own(folder: Path, tiny_overrides: dict[str, Any]) -> None:
    made = config(folder, tiny_overrides, total_steps=20).learners(num_learners=2)
    algo = made.build_algo()
    result = algo.train()
    algo.stop()
    assert (result["env_steps"], result["done"]) == (20, True)


def test_evaluation_runs_beside_the_training(folder: Path, tiny_overrides: dict[str, Any]) -> None:
    made = config(folder, tiny_overrides, eval_every=200, steps_per_iteration=200)
    algo = made.evaluation(evaluation_num_env_runners=1).build_algo()
    for _ in range(300):
        if "eval/return" in (result := algo.train())["report"]:
            break
    algo.stop()
    assert 200 <= result["evaluated_at"] < result["env_steps"]


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("cheetah-run", {}, "unknown task 'cheetah-run'"),
        ("cartpole-balance", {"data.demonstrations": "x"}, "leave data.demonstrations out"),
        ("cartpole-balance", {"data.dataset": "/nowhere"}, "/nowhere is no dataset"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    folder: Path, tiny_overrides: dict[str, Any], task: str, changes: dict[str, Any], message: str
) -> None:
    made = config(folder, tiny_overrides, task).training(overrides=changes)
    with pytest.raises(UserError, match=message):
        made.validate()


def test_runners_and_ray_data_are_refused(folder: Path, tiny_overrides: dict[str, Any]) -> None:
    made = config(folder, tiny_overrides)
    with pytest.raises(UserError, match=r"offline_data\(dataset_num_iters_per_learner=.* is Ray Data's"):
        made.offline_data(dataset_num_iters_per_learner=1)
    with pytest.raises(UserError, match="takes no steps: leave num_env_runners out"):
        made.env_runners(num_env_runners=1).validate()


def test_offline_then_online_with_the_dataset_as_a_share_of_each_batch(
    folder: Path, tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    algo = config(folder, tiny_overrides, "cartpole-balance", total_steps=20).build_algo()
    algo.train()
    algo.save_to_path(tmp_path / "offline")
    algo.stop()
    online = TDMPC2Config().environment("cartpole-balance").debugging(seed=0, log_level="ERROR")
    settings = {"data.seed_steps": 40, "data.demonstrations": str(folder), "data.priority_alpha": 0.6}
    online.training(model_size="tiny", overrides={**tiny_overrides, **settings}, steps_per_iteration=60)
    algo = online.training(start_from=str(tmp_path / "offline")).build_algo()
    learner = algo.learner_group._learner
    sizes: list[int] = []
    shown = learner._loop._demonstrations
    assert (type(shown).__name__, shown.transitions_added) == ("DatasetReplay", 120)
    draw = shown.sample
    shown.sample = lambda num, *args: (sizes.append(num), draw(num, *args))[1]
    result = algo.train()
    algo.stop()
    assert result["grad_updates"] == 60
    assert sizes == [2] * 60
    assert len(np.unique(learner.replay.priorities)) > 20


def test_a_checkpoint_of_a_run_that_took_steps_is_refused(
    folder: Path, tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    online = TDMPC2Config().environment("cartpole-balance").debugging(seed=0, log_level="ERROR")
    settings = {**tiny_overrides, "data.seed_steps": 40}
    online.training(model_size="tiny", overrides=settings, steps_per_iteration=50)
    algo = online.build_algo()
    algo.train()
    algo.save_to_path(tmp_path / "online")
    algo.stop()
    offline = config(folder, tiny_overrides, "cartpole-balance").build_algo()
    with pytest.raises(UserError, match="is of a run that took steps, this one learns from a dataset alone"):
        offline.restore_from_path(tmp_path / "online")
    offline.stop()
    begun = config(folder, tiny_overrides, "cartpole-balance", start_from=str(tmp_path / "online"))
    algo = begun.build_algo()
    algo.train()
    algo.stop()
