"""Initial states: the same for the same seed, and never the same again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.acting.env_runner import AgentEnvRunner

pytestmark = pytest.mark.usefixtures("local_ray")


def config(overrides: dict[str, Any], seed: int) -> TDMPC2Config:
    config = TDMPC2Config().environment("walker-walk")
    config.training(model_size="tiny", overrides=overrides, updates_per_call=5)
    return config.debugging(seed=seed, log_level="ERROR")


def first_obs(overrides: dict[str, Any], *, seed: int = 0, worker_index: int = 0, updates: int = 0) -> Any:
    runner = AgentEnvRunner(config=config(overrides, seed), worker_index=worker_index)
    runner.module.count_updates(updates)
    (episode,) = runner.sample(num_timesteps=1)
    runner.stop()
    return episode.get_observations(0)


def test_a_seed_gives_the_same_start(tiny_overrides: dict[str, Any]) -> None:
    assert np.array_equal(first_obs(tiny_overrides), first_obs(tiny_overrides))


@pytest.mark.parametrize("other", [{"updates": 100}, {"worker_index": 1}, {"seed": 1}])
def test_restarts_runners_and_runs_start_elsewhere(
    tiny_overrides: dict[str, Any], other: dict[str, int]
) -> None:
    assert not np.allclose(first_obs(tiny_overrides), first_obs(tiny_overrides, **other))


def test_neighbouring_seeds_do_not_share_runners_episodes(tiny_overrides: dict[str, Any]) -> None:
    """RLlib's seed of a runner is the run's plus the runner's index."""
    one = first_obs(tiny_overrides, seed=0, worker_index=1)
    assert not np.allclose(one, first_obs(tiny_overrides, seed=1, worker_index=0))


@pytest.mark.parametrize("seed_steps", [25, 1000])
def test_a_restored_run_does_not_play_its_first_episodes_again(
    tmp_path: Path, tiny_overrides: dict[str, Any], seed_steps: int
) -> None:
    overrides = {**tiny_overrides, "data.seed_steps": seed_steps}
    algo = config(overrides, 3).training(steps_per_iteration=50).build_algo()
    algo.train()
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    algo.stop()
    copy = TDMPC2.from_checkpoint(path)
    copy.train()
    replay = copy.learner_group._learner.replay
    starts = [0, *(np.flatnonzero(replay.next_row[: len(replay) - 1] < 0) + 1)]
    copy.stop()
    assert len(starts) == 2
    assert not np.allclose(*replay.obs[starts])
    assert not np.allclose(*(replay.action[start : start + 5] for start in starts))


def test_each_evaluation_plays_other_episodes(tiny_overrides: dict[str, Any]) -> None:
    algo = config({**tiny_overrides, "data.seed_steps": 50, "planner.method": "policy"}, 3)
    algo = algo.evaluation(evaluation_interval=1, evaluation_duration=1)
    algo = algo.training(steps_per_iteration=50).build_algo()
    seen = []
    runner = algo.eval_env_runner
    reset = runner.env.reset
    runner.env.reset = lambda **kwargs: seen.append(kwargs["seed"]) or reset(**kwargs)
    algo.train()
    algo.train()
    algo.stop()
    assert len(set(seen)) == len(seen) == 2
