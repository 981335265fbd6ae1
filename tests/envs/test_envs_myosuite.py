"""MyoSuite. Without it, only what is said then; with it (docs/environments.md), the tasks themselves."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from tdmpc_ray.envs import list_tasks, make_env, task_info
from tdmpc_ray.errors import UserError

installed = pytest.mark.skipif(
    importlib.util.find_spec("myosuite") is None, reason="MyoSuite is not installed"
)


def test_the_paper_s_ten_tasks() -> None:
    assert len(list_tasks("myosuite")) == 10
    info = task_info("myo-hand-pen-twirl-hard")
    assert (info.simulator_id, info.metric, info.episode_length) == (
        "myoHandPenTwirlRandom-v0",
        "success",
        100,
    )


@pytest.mark.skipif(importlib.util.find_spec("myosuite") is not None, reason="MyoSuite is installed")
def test_a_missing_extra_is_one_line_that_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"task 'myo-hand-pose' needs myosuite.*: pip install") as caught:
        make_env("myo-hand-pose")
    assert "\n" not in str(caught.value)


@installed
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list_tasks("myosuite"))
def test_each_task_lasts_100_steps_and_repeats_with_its_seed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    info = task_info(name)
    outcomes = []
    for _ in range(2):
        env = make_env(name, seed=3)
        assert env.observation_space.shape == (info.obs_size,)
        assert env.action_space.shape == (info.action_size,)
        rng = np.random.default_rng(0)
        seen = [env.reset()[0]]
        for step in range(1, 101):
            obs, reward, terminated, truncated, result = env.step(rng.uniform(-1, 1, 39))
            seen.append(np.append(obs, reward))
            assert (terminated, truncated) == (False, step == 100)
            assert result["success"] in (0.0, 1.0)
        seen.append(env.reset()[0])
        seen.append(env.reset(seed=3)[0])
        outcomes.append(seen)
        env.close()
    for one, two in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(one, two)
    if info.simulator_id.endswith("Random-v0"):
        first, *_, second, again = outcomes[0]
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(first, again)
    assert capsys.readouterr().out == ""


@installed
@pytest.mark.filterwarnings("ignore")
def test_frames() -> None:
    env = make_env("myo-hand-reach", seed=0, render_mode="rgb_array")
    env.reset()
    frames = [env.render()]
    for _ in range(10):
        env.step(np.ones(39))
    frames.append(env.render())
    assert frames[0].shape == (384, 384, 3)
    assert frames[0].std() > 10
    assert not np.array_equal(*frames)
    env.close()
