"""ManiSkill. Without it, only what is said then; with it (docs/environments.md), the tasks themselves."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tdmpc_ray.envs import list_tasks, make_env, task_info
from tdmpc_ray.errors import UserError

IS_INSTALLED = importlib.util.find_spec("mani_skill") is not None
installed = pytest.mark.skipif(not IS_INSTALLED, reason="ManiSkill is not installed")
quiet = pytest.mark.filterwarnings("ignore")
# The other two need models that are a download of their own.
TASKS = ["lift-cube", "pick-cube", "stack-cube"]


def test_the_paper_s_five_tasks() -> None:
    assert list_tasks("maniskill") == ["lift-cube", "pick-cube", "pick-ycb", "stack-cube", "turn-faucet"]
    info = task_info("pick-cube")
    assert (info.metric, info.episode_length, info.action_repeat) == ("success", 100, 2)


@pytest.mark.skipif(IS_INSTALLED, reason="ManiSkill is installed")
def test_a_missing_extra_is_one_line_that_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"task 'pick-cube' needs maniskill.*: pip install") as caught:
        make_env("pick-cube")
    assert "\n" not in str(caught.value)


@installed
@quiet
@pytest.mark.parametrize("name", TASKS)
def test_each_task_lasts_100_steps_and_repeats_with_its_seed(
    name: str, capfd: pytest.CaptureFixture[str]
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
            obs, reward, terminated, truncated, result = env.step(rng.uniform(-1, 1, info.action_size))
            seen.append(np.append(obs, reward))
            assert (terminated, truncated) == (False, step == 100)
            assert result["success"] in (0.0, 1.0)
        seen.append(env.reset()[0])
        seen.append(env.reset(seed=3)[0])
        outcomes.append(seen)
        env.close()
    for one, two in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(one, two)
    first, *_, second, again = outcomes[0]
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again)
    assert capfd.readouterr() == ("", "")


@installed
@quiet
def test_lifting_the_cube_is_success_and_stays_so() -> None:
    """A scripted hand: over the cube, down, grip, up."""
    env = make_env("lift-cube", seed=0)
    obs, _ = env.reset()
    rewards, successes = [], []
    for step in range(100):
        to_cube = obs[-3:]
        if step < 40:
            above = np.array([0, 0, 0.08 if step < 20 else 0.0])
            action = np.append(np.clip(10 * (to_cube + above), -1, 1), 1.0)
        else:
            action = np.array([0, 0, 0 if step < 45 or step > 70 else 0.5, -1.0])
        obs, reward, _, _, info = env.step(action)
        rewards.append(reward)
        successes.append(info["success"])
    assert successes[44] == 0.0
    assert successes[-1] == 1.0
    assert successes == sorted(successes)
    assert rewards[-1] > 3.5 * 2 > 1.5 * 2 > rewards[0]
    env.reset()
    assert env.step(np.zeros(4))[-1]["success"] == 0.0
    env.close()


@installed
@quiet
@pytest.mark.parametrize("name", ["pick-ycb", "turn-faucet"])
def test_missing_models_are_one_line_that_says_how_to_get_them(name: str) -> None:
    with pytest.raises(UserError, match=r"download_asset (ycb|partnet)") as caught:
        make_env(name)
    assert "\n" not in str(caught.value)


@installed
@quiet
def test_no_vulkan_device_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from tdmpc_ray.envs import make_env; make_env('pick-cube')"
    command = [sys.executable, "-c", code]
    for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, str(tmp_path / "none.json"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "UserError: task 'pick-cube': ManiSkill finds no Vulkan device" in done.stderr


@installed
@quiet
def test_frames(capfd: pytest.CaptureFixture[str]) -> None:
    env = make_env("pick-cube", seed=0, render_mode="rgb_array")
    env.reset()
    frames = [env.render()]
    for _ in range(10):
        env.step(np.ones(4))
    frames.append(env.render())
    assert frames[0].shape == (384, 384, 3)
    assert frames[0].std() > 10
    assert not np.array_equal(*frames)
    env.close()
    assert "WARNING" not in capfd.readouterr().err
