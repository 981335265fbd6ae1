"""The custom DMControl tasks against recorded states (see tests/fixtures/dmcontrol_tasks/README.md)."""

from __future__ import annotations

import os
from pathlib import Path

import mujoco
import numpy as np
import pytest

from tdmpc_ray.envs import list_tasks, make_env, task_info

FIXTURES = Path(
    os.environ.get("TDMPC_RAY_TASK_FIXTURES", Path(__file__).parents[1] / "fixtures" / "dmcontrol_tasks")
)
NAMES = sorted(path.stem for path in FIXTURES.glob("*.npz"))
CLOSE = {"rtol": 0, "atol": 1e-6}


class Replay:
    """A recorded task beside ours, one control step at a time."""

    def __init__(self, name: str) -> None:
        recorded = np.load(FIXTURES / f"{name}.npz")
        self.arrays = {key: recorded[key] for key in recorded.files}
        self.env = make_env(name, seed=int(self.arrays["seed"]))._env
        self.physics, self.task = self.env.physics, self.env.task

    @property
    def target(self) -> np.ndarray:
        model = self.physics.named.model
        return np.append(model.geom_pos["target"], model.geom_size["target", 0])

    def to_state(self, i: int) -> None:
        mujoco.mj_resetData(self.physics.model.ptr, self.physics.data.ptr)
        if "target" in self.arrays:
            *position, radius = self.arrays["target"][i]
            self.physics.named.model.geom_pos["target"] = position
            self.physics.named.model.geom_size["target", 0] = radius
        for field in ("qpos", "qvel", "ctrl"):
            getattr(self.physics.data, field)[:] = self.arrays[field][i]
        mujoco.mj_forward(self.physics.model.ptr, self.physics.data.ptr)


def flat(observation: dict) -> np.ndarray:
    return np.concatenate([np.ravel(value) for value in observation.values()])


def test_every_custom_task_is_recorded() -> None:
    custom = {name for name in list_tasks("dmcontrol") if task_info(name).is_custom}
    assert len(custom) == 28
    assert set(NAMES) <= custom
    if "TDMPC_RAY_TASK_FIXTURES" not in os.environ:
        assert set(NAMES) == custom


@pytest.mark.parametrize("name", NAMES)
def test_rewards_and_observations_of_recorded_states(name: str) -> None:
    replay = Replay(name)
    assert replay.arrays["reward"].max() > 0
    for i, (reward, obs) in enumerate(zip(replay.arrays["reward"], replay.arrays["obs"], strict=True)):
        replay.to_state(i)
        np.testing.assert_allclose(replay.task.get_reward(replay.physics), reward, **CLOSE)
        np.testing.assert_allclose(flat(replay.task.get_observation(replay.physics)), obs, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_episode_starts_and_steps(name: str) -> None:
    replay, arrays = Replay(name), Replay(name).arrays
    env, data = replay.env, replay.physics.data
    assert env.control_timestep() == pytest.approx(arrays["control_timestep"])
    for i, obs in enumerate(arrays["reset_obs"]):
        time_step = env.reset()
        np.testing.assert_allclose(data.qpos, arrays["reset_qpos"][i], **CLOSE)
        np.testing.assert_allclose(data.qvel, arrays["reset_qvel"][i], **CLOSE)
        np.testing.assert_allclose(flat(time_step.observation), obs, **CLOSE)
        if "reset_target" in arrays:
            np.testing.assert_allclose(replay.target, arrays["reset_target"][i], **CLOSE)
    for action, reward, obs, qpos in zip(
        *(arrays[f"roll_{key}"] for key in ("action", "reward", "obs", "qpos")), strict=True
    ):
        time_step = env.step(action)
        np.testing.assert_allclose(time_step.reward, reward, **CLOSE)
        np.testing.assert_allclose(flat(time_step.observation), obs, **CLOSE)
        np.testing.assert_allclose(data.qpos, qpos, **CLOSE)


@pytest.mark.parametrize("name", ["cup-spin", "fish-obstacles", "reacher-four-hard", "walker-backflip"])
def test_an_episode_of_the_adapter(name: str) -> None:
    env = make_env(name, seed=1)
    obs, _ = env.reset()
    assert obs.shape == env.observation_space.shape
    steps, total, truncated = 0, 0.0, False
    while not truncated:
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert not terminated
        steps, total = steps + 1, total + reward
    assert steps == 500
    assert 0 <= total <= 1000
