"""Episodes out of the replays of checkpoints, and datasets made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from counting import counting
from counting_env import CountingEnv

from tdmpc_ray import cli
from tdmpc_ray.datasets.dataset import Dataset, DatasetReplay
from tdmpc_ray.datasets.episode import Episode
from tdmpc_ray.envs import register_task
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.checkpoints.recorded import episodes_of, newest_of_trials, source_of


def make_counting(render_mode: str | None = None) -> CountingEnv:
    return CountingEnv({})


def trained(task: str, overrides: dict[str, Any], path: Path, iterations: int = 4, **options: Any) -> Path:
    register_task("counting", make_counting, episode_length=12, can_terminate=True)
    settings = {**overrides, "data.seed_steps": 40, **options.pop("settings", {})}
    config = TDMPC2Config().environment(task, **options.pop("environment", {}))
    config.training(model_size="tiny", overrides=settings, steps_per_iteration=40)
    config.debugging(seed=0, log_level="ERROR").env_runners(**options)
    algo = config.build_algo()
    for _ in range(iterations):
        algo.train()
    algo.save_to_path(path / "checkpoint_000000")
    algo.stop()
    return path / "checkpoint_000000"


def check(episodes: list[Episode]) -> None:
    """What the counting environment gives, of whole episodes and of what is left of one."""
    for episode in episodes:
        number, step, last = episode.obs.T
        assert (number == number[0]).all()
        assert (np.diff(step) == 1).all()
        assert (episode.reward == step[:-1] + 0.5).all()
        np.testing.assert_array_equal(last[1:], episode.action[:, 0])
        episode.check()
        is_over = step[-1] == 3 + number[0] // 2 % 10
        assert episode.terminated == (is_over and number[0] % 2 == 0)


def test_every_step_of_the_replay_is_in_an_episode(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    checkpoint = trained("counting", tiny_overrides, tmp_path, num_envs_per_env_runner=3)
    episodes = list(episodes_of(checkpoint))
    steps = sum(map(len, episodes))
    source = source_of(checkpoint)
    assert (source.steps, source.task, source.seed, source.algorithm) == (steps, "counting", 0, "tdmpc2")
    assert steps >= 160
    check(episodes)
    first = list(episodes_of(checkpoint, first_steps=50))
    assert sum(map(len, first)) == 50
    check(first[:-3])  # the last ones are cut
    assert {int(e.obs[0, 0]) for e in first} <= {int(e.obs[0, 0]) for e in episodes}


def test_of_a_ring_that_has_begun_anew_what_is_left_counts(
    tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    settings = {"data.capacity": 60}
    checkpoint = trained("counting", tiny_overrides, tmp_path, settings=settings, num_envs_per_env_runner=2)
    episodes = list(episodes_of(checkpoint))
    assert 30 < sum(map(len, episodes)) <= 60
    check(episodes)
    with pytest.raises(UserError, match="its replay has lost the run's first steps; leave --first out"):
        list(episodes_of(checkpoint, first_steps=20))


def test_tasks_of_a_set_have_their_own_sizes_and_images_their_stacks(
    tmp_path: Path, tiny_overrides: dict[str, Any]
) -> None:
    both = trained(
        "cartpole-balance+reacher-easy", tiny_overrides, tmp_path / "set", 1, num_envs_per_env_runner=2
    )
    shapes = {(e.task, e.obs.shape[1], e.action.shape[1]) for e in episodes_of(both)}
    assert shapes == {("cartpole-balance", 5, 1), ("reacher-easy", 6, 2)}
    seen = trained("cartpole-balance", tiny_overrides, tmp_path / "rgb", 1, environment={"obs": "rgb"})
    (episode,) = episodes_of(seen)
    assert episode.obs.shape[1:] == (9, 64, 64)
    np.testing.assert_array_equal(episode.obs[1:, :6], episode.obs[:-1, 3:])
    np.testing.assert_array_equal(episode.obs[0, :3], episode.obs[0, 6:])


def test_the_command_makes_a_dataset_of_runs(
    tmp_path: Path, tiny_overrides: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        trained("counting", tiny_overrides, tmp_path / "runs" / str(number))
    assert len(newest_of_trials(tmp_path / "runs")) == 2
    out = str(tmp_path / "data")
    assert cli.main(["dataset", "make", out, str(tmp_path / "runs"), "--first", "100"]) == 0
    assert "data: 1 task, " in capsys.readouterr().out
    dataset = Dataset(tmp_path / "data")
    assert sum(part.steps for part in dataset.manifest.parts) == 200
    replay = DatasetReplay(dataset, ["counting"], (3,), 1, 3)
    batch = replay.sample(50, np.random.default_rng(0))
    assert (batch.obs[1:, :, 2] == batch.action[..., 0]).all()
    assert cli.main(["dataset", "make", out, str(tmp_path / "runs")]) == 2
    assert "is in" in capsys.readouterr().err
    assert cli.main(["dataset", "make", out, str(tmp_path / "nowhere")]) == 2
    assert "no whole checkpoint in" in capsys.readouterr().err


def test_an_environment_without_a_name_is_refused(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    algo = counting(tiny_overrides).build_algo()
    algo.train()
    algo.save_to_path(tmp_path / "checkpoint")
    algo.stop()
    with pytest.raises(UserError, match="of an environment without a name: register it as a task"):
        list(episodes_of(tmp_path / "checkpoint"))
