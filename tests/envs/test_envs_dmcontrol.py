"""DMControl: the adapter against the raw suite."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from dm_control import suite
from gymnasium.utils.env_checker import check_env

from tdmpc_ray.envs import list_tasks, make_env, random_return, task_info
from tdmpc_ray.errors import UserError

# dm_control 1.0.28 on numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:`in1d` is deprecated:DeprecationWarning")


def flat(observation: dict) -> np.ndarray:
    parts = [np.atleast_1d(np.asarray(value)).reshape(-1) for value in observation.values()]
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "observation_size", "action_size"),
    [
        ("walker-walk", 24, 6),
        ("cup-catch", 8, 2),
        ("finger-turn-hard", 12, 2),
        ("quadruped-walk", 78, 12),
    ],
)
def test_an_episode_is_the_suite_s_own(name: str, observation_size: int, action_size: int) -> None:
    env = make_env(name, seed=3)
    raw = suite.load(*task_info(name).simulator_id.split("/"), task_kwargs={"random": 3})
    spec = raw.action_spec()
    assert env.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (observation_size,), np.float32)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (action_size,), np.float32)
    for length in (500, 20):
        observation, info = env.reset()
        np.testing.assert_array_equal(observation, flat(raw.reset().observation))
        assert info == {}
        for step in range(1, length + 1):
            action = env.action_space.sample()
            observation, reward, terminated, truncated, _ = env.step(action)
            control = spec.minimum + (spec.maximum - spec.minimum) * (action.astype(np.float64) + 1) / 2
            first, second = raw.step(control), raw.step(control)
            assert reward == pytest.approx(first.reward + second.reward, abs=1e-12)
            np.testing.assert_allclose(observation, flat(second.observation), rtol=1e-5, atol=1e-6)
            assert observation.dtype == np.float32
            assert isinstance(reward, float)
            assert not terminated
            assert truncated == (step == 500)
        assert second.last() == (length == 500)


def test_action_bounds_reach_the_simulator() -> None:
    env = make_env("quadruped-walk", seed=0)
    env.reset()
    raw = env._env
    for action, bound in ((-1.0, raw.action_spec().minimum), (1.0, raw.action_spec().maximum)):
        env.step(np.full(12, action, np.float32))
        np.testing.assert_allclose(raw.physics.control(), bound, atol=1e-12)
    assert raw.action_spec().maximum.max() == pytest.approx(1.1)


def test_unbounded_actuators_take_the_action_as_it_is() -> None:
    env = make_env("lqr-lqr-2-1", seed=0)
    env.reset()
    env.step(np.array([0.25], np.float32))
    np.testing.assert_allclose(env._env.physics.control(), [0.25])


@pytest.mark.parametrize("name", ["walker-walk", "reacher-hard", "lqr-lqr-6-2"])
def test_a_seed_repeats_and_the_stream_goes_on(name: str) -> None:
    env = make_env(name, seed=7)
    starts = [env.reset()[0] for _ in range(3)]
    assert not np.array_equal(starts[0], starts[1])
    fresh = make_env(name)
    again = [fresh.reset(seed=7)[0], fresh.reset()[0], fresh.reset()[0]]
    np.testing.assert_array_equal(starts, again)
    assert not np.array_equal(fresh.reset(seed=8)[0], starts[0])
    np.testing.assert_array_equal(fresh.reset(seed=7)[0], starts[0])
    action = np.full(env.action_space.shape, 0.3, np.float32)
    env.reset(seed=7)
    np.testing.assert_array_equal(env.step(action)[0], fresh.step(action)[0])


def test_action_samples_are_seeded() -> None:
    first, second, other = (make_env("cartpole-balance", seed=s).action_space for s in (1, 1, 2))
    samples = [[space.sample() for _ in range(5)] for space in (first, second, other)]
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


def test_stepping_outside_of_an_episode_is_refused() -> None:
    env = make_env("pendulum-swingup", seed=0)
    action = np.zeros(1, np.float32)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)
    env.reset()
    while not env.step(action)[3]:
        pass
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)


def test_vector_env_seeds_each_copy() -> None:
    envs = gymnasium.vector.SyncVectorEnv([lambda: make_env("reacher-easy")] * 2)
    observations, _ = envs.reset(seed=5)
    expected = [make_env("reacher-easy", seed=s).reset()[0] for s in (5, 6)]
    np.testing.assert_array_equal(observations, expected)
    envs.close()


def test_gymnasium_s_checker() -> None:
    with warnings.catch_warnings():
        # It warns of infinite observation bounds, and of an environment outside of its registry.
        warnings.simplefilter("ignore", UserWarning)
        check_env(make_env("walker-walk", seed=0))


def test_random_return() -> None:
    returns = random_return("walker-walk", 2, seed=0)
    assert returns == random_return("walker-walk", 2, seed=0)
    assert len(set(returns)) == 2
    assert all(15 < value < 80 for value in returns)
    with pytest.raises(UserError, match="episodes must be at least 1"):
        random_return("walker-walk", 0, seed=0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match=f"seed {seed} is out of range"):
        make_env("walker-walk", seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_tasks("dmcontrol"))
def test_every_task_runs(name: str) -> None:
    env, used = make_env(name, seed=1), make_env(name, seed=2)
    info = task_info(name)
    assert env.observation_space.shape == (info.obs_size,)
    assert env.action_space.shape == (info.action_size,)
    used.reset()
    for reset in (env.reset(), used.reset(seed=1)):
        assert env.observation_space.contains(reset[0])
    actions = [env.action_space.sample() for _ in range(20)]
    for action in actions:
        step, again = env.step(action), used.step(action)
        assert env.observation_space.contains(step[0])
        assert np.isfinite(step[0]).all()
        assert np.isfinite(step[1])
        assert step[2:4] == (False, False)
        np.testing.assert_array_equal(step[0], again[0])
        assert step[1] == again[1]
