"""Gymnasium tasks: spaces, terminations, time limits, refusals."""

from __future__ import annotations

import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tdmpc_ray.envs import make_env, random_return, task_info
from tdmpc_ray.errors import UserError

TOY = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, MultiDiscrete


class Toy(gymnasium.Env):
    def __init__(self, kind="matrix", render_mode=None):
        number = Box(-1, 1, (1,), np.float32)
        self.action_space = {
            "grid": Box(-1, 1, (2, 2), np.float32),
            "unbounded": Box(-np.inf, np.inf, (1,), np.float32),
            "huge": Box(-3e38, 3e38, (1,), np.float32),
            "nothing": Box(-1, 1, (0,), np.float32),
            "integers": Box(0, 3, (1,), np.int64),
            "buttons": MultiDiscrete([2, 2]),
        }.get(kind, Box(np.array([0.0, -4.0]), np.array([1.0, 4.0]), dtype=np.float64))
        self.observation_space = {
            "dict": Dict({"a": number}),
            "image": Box(0, 255, (8, 8, 3), np.uint8),
            "blind": Box(-1, 1, (0,), np.float32),
            "bytes": Box(0, 255, (6,), np.uint8),
        }.get(kind, Box(-1e9, 1e9, (2, 3), np.float64))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.arange(6.0).reshape(2, 3), {}

    def step(self, action):
        self.action = action
        return np.full((2, 3), 0.5), np.float64(1.0), False, False, {}


for kind in "matrix grid unbounded huge nothing integers buttons dict image blind bytes".split():
    gymnasium.register(f"Toy-{kind}-v0", entry_point=Toy, kwargs={"kind": kind})
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "toy_gym_envs.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    return "gym:toy_gym_envs:Toy-"


def test_pendulum_s_torque_is_rescaled() -> None:
    env, raw = make_env("gym:Pendulum-v1", seed=1), gymnasium.make("Pendulum-v1")
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation, raw.reset(seed=1)[0])
    for step in range(1, 201):
        action = env.action_space.sample()
        observation, reward, terminated, truncated, _ = env.step(action)
        expected, raw_reward, *_ = raw.step(2 * action)
        np.testing.assert_allclose(observation, expected, rtol=1e-5, atol=1e-6)
        assert reward == pytest.approx(float(raw_reward), rel=1e-5)
        assert observation.dtype == np.float32
        assert not terminated
        assert truncated == (step == 200)


def test_termination_is_real() -> None:
    env = make_env("gym:InvertedPendulum-v5", seed=0)
    observation, _ = env.reset()
    over, truncated, steps = False, False, 0
    while not (over or truncated):
        observation, _, over, truncated, _ = env.step(np.ones(1, np.float32))
        steps += 1
    assert over
    assert not truncated
    assert steps < 100
    assert abs(observation[1]) > 0.2
    assert observation.dtype == np.float32


@pytest.mark.parametrize("name", ["gym:Pendulum-v1", "gym:InvertedPendulum-v5"])
def test_seeding(name: str) -> None:
    env, other = make_env(name, seed=7), make_env(name)
    starts = [env.reset()[0] for _ in range(3)]
    assert not np.array_equal(starts[0], starts[1])
    np.testing.assert_array_equal(starts, [other.reset(seed=7)[0], other.reset()[0], other.reset()[0]])
    assert random_return(name, 2, seed=3) == random_return(name, 2, seed=3)


def test_an_environment_from_a_module(toy: str) -> None:
    """No declared time limit, a matrix observation in float64, an asymmetric action range."""
    name = f"{toy}matrix-v0"
    assert task_info(name).episode_length == 1000
    env = make_env(name, seed=0)
    observation, _ = env.reset()
    np.testing.assert_array_equal(observation, np.arange(6, dtype=np.float32))
    assert observation.dtype == np.float32
    for action, scaled in (([-1, -1], [0, -4]), ([1, 1], [1, 4]), ([0, 0.5], [0.5, 2])):
        _, reward, *_ = env.step(np.array(action, np.float32))
        np.testing.assert_allclose(env.unwrapped.action, scaled)
        assert env.unwrapped.action.dtype == np.float64
        assert type(reward) is float
    for step in range(4, 1001):
        *_, truncated, _ = env.step(np.zeros(2, np.float32))
        assert truncated == (step == 1000)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("grid", "has actions Box"),
        ("integers", "has actions Box"),
        ("buttons", "has actions MultiDiscrete"),
        ("unbounded", "has unbounded actions"),
        ("huge", "has unbounded actions"),
        ("nothing", "has actions Box"),
        ("blind", "has observations Box"),
    ],
)
def test_unsupported_spaces_are_refused(toy: str, kind: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        make_env(f"{toy}{kind}-v0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "size"), [("bytes", 6), ("image", 192), ("dict", 1)])
def test_what_becomes_a_vector(toy: str, kind: str, size: int) -> None:
    """Small arrays of bytes are grids, not images."""
    assert make_env(f"{toy}{kind}-v0").observation_space.shape == (size,)


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(UserError, match="'gym:CartPole-v1' has actions Discrete: choose"):
        make_env("gym:CartPole-v1")


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_an_environment_that_cannot_be_built_says_why_in_one_line() -> None:
    with pytest.raises(UserError, match="'gym:HalfCheetah-v2' cannot be built: The mujoco v2") as caught:
        make_env("gym:HalfCheetah-v2")
    assert "\n" not in str(caught.value)


def test_a_missing_module_is_named() -> None:
    with pytest.raises(UserError, match="cannot import module 'no_such_module'"):
        make_env("gym:no_such_module:Env-v0")
    with pytest.raises(UserError, match=r"cannot import module '\.no_such_module'"):
        make_env("gym:.no_such_module:Env-v0")


def test_gymnasium_s_checker() -> None:
    with warnings.catch_warnings():
        # It warns that the environment is wrapped, and of infinite observation bounds.
        warnings.simplefilter("ignore", UserWarning)
        check_env(make_env("gym:Pendulum-v1", seed=0), skip_render_check=True)
