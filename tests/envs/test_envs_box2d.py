"""Box2D. Without it, only what is said then; with it (docs/environments.md), the tasks themselves."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tdmpc_ray.envs import list_tasks, make_env, task_info
from tdmpc_ray.errors import UserError

HAS_BOX2D = importlib.util.find_spec("Box2D") is not None
installed = pytest.mark.skipif(not HAS_BOX2D, reason="Box2D is not installed")


def test_the_published_code_s_two_tasks() -> None:
    assert list_tasks("box2d") == ["bipedal-walker", "lunarlander-continuous"]
    info = task_info("lunarlander-continuous")
    assert (info.simulator_id, info.episode_length, info.can_terminate) == (
        "LunarLanderContinuous-v3",
        500,
        True,
    )


@pytest.mark.skipif(HAS_BOX2D, reason="Box2D is installed")
def test_a_missing_extra_is_one_line_that_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"'bipedal-walker' needs box2d.*: pip install 'tdmpc-ray\[box2d\]'"):
        make_env("bipedal-walker")


@installed
@pytest.mark.parametrize("name", list_tasks("box2d"))
def test_each_task_is_as_its_table_says_and_repeats_with_its_seed(name: str) -> None:
    info, played = task_info(name), []
    for _ in range(2):
        env = make_env(name, seed=3)
        assert env.observation_space.shape == (info.obs_size,)
        assert env.action_space.shape == (info.action_size,)
        obs, _ = env.reset()
        seen, over, steps = [obs], False, 0
        while not over:
            obs, _, terminated, truncated, _ = env.step(np.zeros(info.action_size or 0, np.float32))
            seen.append(obs)
            over, steps = terminated or truncated, steps + 1
        assert steps <= info.episode_length
        played.append(seen)
        env.close()
    np.testing.assert_array_equal(*played)


@installed
def test_a_car_is_seen_from_above() -> None:
    env = make_env("gym:CarRacing-v3", seed=0)
    obs, _ = env.reset()
    assert obs.shape == env.observation_space.shape == (9, 64, 64)
    assert obs.std() > 10
    env.close()
