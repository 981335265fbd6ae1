"""Meta-World: the adapter against the raw environment, and whose random numbers it uses."""

from __future__ import annotations

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE

from tdmpc_ray.envs import list_tasks, make_env, random_return, task_info
from tdmpc_ray.envs.wrappers import numpy_state

GOAL = slice(36, 39)


def raw_env(simulator_id: str):
    env = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{simulator_id}-goal-observable"](seed=0)
    env._freeze_rand_vec = False
    return env


@pytest.mark.parametrize("task", ["reach", "button-press", "pick-place"])
def test_an_episode_is_the_raw_one(task: str) -> None:
    env, raw = make_env(f"mw-{task}", seed=4), raw_env(f"{task}-v3")
    assert env.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (39,), np.float32)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    draws = np.random.RandomState(4)
    for length in (100, 10):
        observation, info = env.reset()
        with numpy_state(draws):
            expected, _ = raw.reset()
        raw.step(np.zeros(4))
        np.testing.assert_array_equal(observation, expected.astype(np.float32))
        assert info == {"success": 0.0}
        for step in range(1, length + 1):
            action = env.action_space.sample()
            observation, reward, terminated, truncated, info = env.step(action)
            _, first, *_ = raw.step(action)
            expected, second, _, _, raw_info = raw.step(action)
            assert reward == pytest.approx(first + second, abs=1e-12)
            np.testing.assert_array_equal(observation, expected.astype(np.float32))
            assert observation.dtype == np.float32
            assert info == {"success": float(raw_info["success"])}
            assert isinstance(info["success"], float)
            assert not terminated
            assert truncated == (step == 100)


def test_a_sparse_reward_is_success_minus_one() -> None:
    dense, sparse = (make_env(name, seed=3) for name in ("mw-reach", "mw-reach@sparse"))
    first, second = dense.reset()[0], sparse.reset()[0]
    won = set()
    for _ in range(60):
        np.testing.assert_array_equal(first, second)
        # Towards the goal, which the observation ends with.
        action = np.append(np.clip(10 * (first[-3:] - first[:3]), -1, 1), 0).astype(np.float32)
        first, reward, *_, info = dense.step(action)
        second, rare, *_, _ = sparse.step(action)
        assert (rare, reward > 0) == (info["success"] - 1, True)
        won.add(info["success"])
    assert won == {0.0, 1.0}


def test_success_follows_the_state() -> None:
    """A proportional controller reaches the goal; its success is 1.0 there and 0.0 on the way."""
    env = make_env("mw-reach", seed=0)
    observation, _ = env.reset()
    successes, truncated = [], False
    while not truncated:
        direction = np.clip(10 * (observation[GOAL] - observation[:3]), -1, 1)
        observation, _, _, truncated, info = env.step(np.append(direction, 0.0).astype(np.float32))
        successes.append(info["success"])
    assert successes[0] == 0.0
    assert successes[-1] == 1.0


def test_each_episode_has_its_own_goal() -> None:
    env = make_env("mw-reach", seed=0)
    goals = np.array([env.reset()[0][GOAL] for _ in range(5)])
    assert len(np.unique(goals, axis=0)) == 5
    assert (goals != 0).all()


def test_a_seed_repeats_and_the_stream_goes_on() -> None:
    env, used = make_env("mw-push", seed=7), make_env("mw-push", seed=8)
    starts = [env.reset()[0] for _ in range(3)]
    assert not np.array_equal(used.reset()[0], starts[0])
    used.step(used.action_space.sample())
    again = [used.reset(seed=7)[0], used.reset()[0], used.reset()[0]]
    np.testing.assert_array_equal(starts, again)


def test_numpy_s_global_generator_is_neither_used_nor_moved() -> None:
    alone = make_env("mw-push", seed=1)
    expected = [alone.reset()[0] for _ in range(3)]
    np.random.seed(0)
    before = np.random.get_state()
    env, other = make_env("mw-push", seed=1), make_env("mw-push", seed=2)
    unseeded = make_env("mw-reach")
    for start in expected:
        other.reset()
        np.testing.assert_array_equal(env.reset()[0], start)
        unseeded.reset()
        env.step(env.action_space.sample())
    after = np.random.get_state()
    assert before[2:] == after[2:]
    np.testing.assert_array_equal(before[1], after[1])
    np.random.seed(123)
    np.testing.assert_array_equal(make_env("mw-push", seed=1).reset()[0], expected[0])


def test_numpy_state_is_restored_after_an_error() -> None:
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    with pytest.raises(ValueError, match="low"), numpy_state(np.random.RandomState(1)):
        np.random.randint(np.random.randint(5, 10), 5, size=1000)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_no_warnings_while_running() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(random_return("mw-reach", 1, seed=0)) == 1


def test_gymnasium_s_checker() -> None:
    with warnings.catch_warnings():
        # It warns of infinite observation bounds, and of an environment outside of its registry.
        warnings.simplefilter("ignore", UserWarning)
        check_env(make_env("mw-reach", seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("name", list_tasks("metaworld"))
def test_every_task_runs(name: str) -> None:
    env, used = make_env(name, seed=1), make_env(name, seed=2)
    info = task_info(name)
    assert env.observation_space.shape == (info.obs_size,)
    assert env.action_space.shape == (info.action_size,)
    used.reset()
    for _ in range(10):
        used.step(used.action_space.sample())
    (first, _), (again, _) = env.reset(), used.reset(seed=1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[GOAL], np.zeros(3))
    for count in range(1, 101):
        action = env.action_space.sample()
        step, twin = env.step(action), used.step(action)
        np.testing.assert_array_equal(step[0], twin[0])
        assert step[1] == twin[1]
        assert 0 <= step[1] <= 20
        assert step[4]["success"] in (0.0, 1.0)
        assert step[2:4] == (False, count == 100)
