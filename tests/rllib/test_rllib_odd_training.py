"""Training on environments of all kinds: what is learned from, and how large the replay is."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import odd_envs
import pytest
import ray
from odd_envs import LENGTH

from tdmpc_ray.envs import register_task, registered
from tdmpc_ray.envs.spaces import meaning_of
from tdmpc_ray.errors import UserError
from tdmpc_ray.rllib import TDMPC2Config
from tdmpc_ray.rllib.checkpoints.load import load_module
from tdmpc_ray.rllib.evaluation.of_checkpoints import evaluate_checkpoint

pytestmark = pytest.mark.usefixtures("local_ray")
ray.cloudpickle.register_pickle_by_value(sys.modules["odd_envs"])


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "_tasks", {})


@pytest.mark.parametrize(
    "cls", [odd_envs.OwnPixels, odd_envs.GoalDict, odd_envs.OwnBounds, odd_envs.ImageAndVector]
)
def test_a_class_trains(cls: type, tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    """And its checkpoint knows what the numbers mean."""
    config = TDMPC2Config().environment(cls).debugging(seed=0, log_level="ERROR")
    overrides = {**tiny_overrides, "data.seed_steps": 40, "planner.method": "policy", "model.num_channels": 4}
    config.training(model_size="tiny", overrides=overrides, episode_length=LENGTH, steps_per_iteration=45)
    algo = config.build_algo()
    try:
        while algo.grad_updates < 45:
            algo.train()
        algo.save_to_path(tmp_path / "checkpoint")
        assert evaluate_checkpoint(tmp_path / "checkpoint", 1)["returns"] == [LENGTH]
        module = load_module(tmp_path / "checkpoint")
        seen, acts = meaning_of(module.observation_space), meaning_of(module.action_space)
        if cls is odd_envs.OwnPixels:
            image = {"kind": "images", "path": [], "space": "Box(84, 84, 3) of uint8", "frames": 3}
            assert seen == image
        elif cls is odd_envs.ImageAndVector:
            assert (seen["image"]["path"], seen["image"]["frames"]) == (["camera"], 3)
            parts = [(part["path"], part["size"]) for part in seen["vector"]["parts"]]
            assert parts == [(["speed"], 2), (["gear"], 3)]
        elif cls is odd_envs.GoalDict:
            parts = [(part["path"], part["size"]) for part in seen["parts"]]
            assert parts == [(["observation"], 4), (["achieved_goal"], 3), (["desired_goal"], 3)]
        else:
            assert acts == {"low": [-0.1, 2.0], "high": [0.3, 3.0]}
        own: Any = algo.env_runner.env.unwrapped.envs[0].unwrapped
        assert all(cls.action_space.contains(action) for action in own.actions)  # type: ignore[attr-defined]
    finally:
        algo.stop()


def test_what_was_shown_in_two_parts_is_learned_from(tmp_path: Path, tiny_overrides: dict[str, Any]) -> None:
    """Trained by a remote runner, played and recorded without Ray, and the records are demonstrations."""
    register_task("both", odd_envs.ImageAndVector, episode_length=LENGTH)
    overrides = {**tiny_overrides, "data.seed_steps": 40, "planner.method": "policy", "model.num_channels": 4}
    config = TDMPC2Config().environment("both").debugging(seed=0, log_level="ERROR")
    config.training(model_size="tiny", overrides=overrides, steps_per_iteration=45)
    config.env_runners(num_env_runners=1, num_envs_per_env_runner=2)
    algo = config.build_algo()
    try:
        while not algo.grad_updates:
            algo.train()
        algo.save_to_path(tmp_path / "checkpoint")
    finally:
        algo.stop()
    saved = pickle.loads((tmp_path / "checkpoint/algorithm_state.pkl").read_bytes())
    assert saved["tdmpc_ray"]["metric"] == "eval/return", "the task's"
    played = evaluate_checkpoint(tmp_path / "checkpoint", episodes=2, record=tmp_path / "shown")
    assert played["returns"] == [LENGTH, LENGTH]
    overrides |= {"data.demonstrations": str(tmp_path / "shown"), "update.batch_size": 4}
    config = TDMPC2Config().environment("both").debugging(seed=0, log_level="ERROR")
    config.training(model_size="tiny", overrides=overrides, steps_per_iteration=45)
    algo = config.build_algo()
    try:
        shown = algo.learner_group._learner._loop._demonstrations
        assert shown.transitions_added == 2 * LENGTH
        np.testing.assert_allclose(shown.vector[: LENGTH + 1, 0], np.arange(LENGTH + 1) / LENGTH)
        while not algo.grad_updates:
            algo.train()
    finally:
        algo.stop()


def test_a_replay_is_as_large_as_its_run(tiny_overrides: dict[str, Any]) -> None:
    """Of 20,000 numbers the default capacity would take 80 GB."""
    config = TDMPC2Config().environment(odd_envs.TwentyThousandNumbers).debugging(seed=0, log_level="ERROR")
    overrides = {**tiny_overrides, "data.seed_steps": 190, "data.capacity": 1_000_000, "update.batch_size": 2}
    overrides |= {"planner.method": "policy"}
    config.training(model_size="tiny", overrides=overrides, episode_length=LENGTH, total_steps=200)
    algo = config.build_algo()
    try:
        while not algo.at_end or algo.grad_updates < 200:
            algo.train()
        replay = algo.learner_group._learner.replay
        assert 200 < replay.rows_written <= replay.capacity <= 410
        assert replay.transitions_added == 200
    finally:
        algo.stop()


def test_a_replay_without_room_is_refused(tiny_overrides: dict[str, Any]) -> None:
    config = TDMPC2Config().environment(odd_envs.TwentyThousandNumbers)
    overrides = {**tiny_overrides, "data.capacity": 10**8}
    config.training(model_size="tiny", overrides=overrides, episode_length=LENGTH)
    with pytest.raises(UserError, match=r"^the replay takes 8,002 GB and .*: lower data\.capacity"):
        config.build_algo()
