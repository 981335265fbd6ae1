"""What a run says of its settings, once: targets beyond the bins, steps that no sequence holds."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import ray

from tdmpc_ray.core.config import agent_config
from tdmpc_ray.rllib import TDMPC2, TDMPC2Config
from tdmpc_ray.rllib.metrics.notes import OnceNotes


class HugeRewards(gymnasium.Env):
    """-1,000,000 a step; every second episode lasts two steps, the others ten."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.episodes = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.left = 2 if self.episodes % 2 else 10
        self.episodes += 1
        return np.zeros(3, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.left -= 1
        return np.zeros(3, np.float32), -1e6, False, self.left == 0, {}


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def huge_rewards(overrides: dict[str, Any]) -> TDMPC2Config:
    config = TDMPC2Config().environment(HugeRewards)
    config.training(
        model_size="tiny",
        overrides={**overrides, "data.seed_steps": 24},
        episode_length=10,
        steps_per_iteration=30,
    )
    return config.debugging(seed=0, log_level="ERROR")


@pytest.mark.usefixtures("local_ray")
def test_a_run_says_what_its_settings_lose(tiny_overrides: dict[str, Any], tmp_path: Path) -> None:
    algo = huge_rewards(tiny_overrides).build_algo()
    result = algo.train()
    assert result["report"]["train/targets_clipped"] == 1.0
    assert result["report"]["train/rewards_clipped"] == 1.0
    # Of 30 steps, those of two short episodes.
    assert result["report"]["time/steps_left_out"] == 4
    clipped, left_out = result["notes"]
    assert clipped.startswith("100% of the value targets lie outside of the bins")
    assert "-22,025 and 22,025 (symexp of model.vmin=-10 and model.vmax=10)" in clipped
    assert left_out.startswith("4 steps so far are not learned from")
    assert "planner.horizon=3" in left_out
    path = algo.save_to_path(str(tmp_path / "checkpoint"))
    again = algo.train()
    assert again["notes"] == []
    assert again["report"]["time/steps_left_out"] == 10
    algo.stop()
    restored = TDMPC2.from_checkpoint(path)
    result = restored.train()
    assert (result["notes"], result["report"]["time/steps_left_out"]) == ([], 8)
    restored.stop()


@pytest.mark.usefixtures("local_ray")
def test_short_demonstrations_are_counted_and_an_episodic_run_leaves_nothing_out(
    tiny_overrides: dict[str, Any], tmp_path: Path
) -> None:
    for steps in (1, 5):
        arrays = {"obs": np.zeros((steps + 1, 3)), "action": np.zeros((steps, 1)), "reward": np.zeros(steps)}
        np.savez(tmp_path / f"{steps}.npz", **arrays)
    for is_episodic, left_out in ((False, 4 + 1), (True, 0)):
        settings = {"data.demonstrations": str(tmp_path), "model.episodic": is_episodic}
        algo = huge_rewards({**tiny_overrides, **settings}).build_algo()
        result = algo.train()
        assert result["report"]["time/steps_left_out"] == left_out
        assert len(result["notes"]) == 1 + (left_out > 0)
        replay = algo.learner_group._learner.replay
        assert (replay.num_valid == replay.transitions_added) == is_episodic
        algo.stop()


def test_nothing_is_said_below_one_percent() -> None:
    notes = OnceNotes(agent_config("tiny"))
    assert notes.lines({"train/targets_clipped": 0.01, "time/steps_left_out": 0.0}) == []
    assert notes.lines({}) == []
    wide = OnceNotes(agent_config("tiny", overrides={"model.vmin": -1000.0, "model.vmax": 1.0}))
    assert "end at -inf and 2 (" in wide.lines({"train/targets_clipped": 0.02})[0]
